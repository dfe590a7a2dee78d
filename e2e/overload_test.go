//go:build !race

package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// These tests run without the race detector, which knows 8,128 goroutines at most and makes
// everything slow.

const (
	overloadCallers = 12_000 // 10,000 of them wait for Vault at once
	mayWait         = 10_000
	overloadLatency = 5 * time.Second
	// measuring is long enough for a p99, and ends before the first of those who wait are told of a
	// time-out.
	measuring = 3 * time.Second
	probers   = 4
	// mostMemory is what the process may take for all that: some 25 kB for each caller that waits.
	mostMemory = 400 << 20
	// overloadTimeout is the timeout of the slow connection. Half of it is for the queue.
	overloadTimeout = 20 * time.Second
	// quickly is when the excess is refused, at 99 of 100, while 12,000 callers arrive within a
	// second: well before any of them could have waited in the queue for nothing.
	quickly = overloadTimeout / 4
	// slowdown is what may become of the p99 of what does not wait for the slow Vault.
	slowdown = 3.0
	rounds   = 5
)

func TestOverloadIsRefusedQuicklyAndHoldsUpNobodyElse(t *testing.T) {
	o := newOverload(t)
	best := map[string]float64{}
	var quickest time.Duration // p99 of a refusal in the best round
	for round := range rounds {
		quiet := o.measure()
		storm := o.storm()
		loaded := o.measure()
		if round == 0 {
			storm.awaitTimeouts()
		}
		storm.end()
		for what, took := range loaded {
			ratio := float64(took) / float64(quiet[what])
			t.Logf("round %d: p99 of %s: %v when quiet, %v in the storm: %.1f times", round+1, what,
				quiet[what], took, ratio)
			best[what] = cmp.Or(min(best[what], ratio), ratio)
		}
		refusal := storm.report()
		quickest = cmp.Or(min(quickest, refusal), refusal)
		if !slices.ContainsFunc([]string{"cached answers", "the other connection's reads"},
			func(what string) bool { return best[what] > slowdown }) {
			break
		}
	}
	for what, ratio := range best {
		if ratio > slowdown {
			t.Errorf("in each of %d rounds a storm made %s more than %.1f times slower", rounds,
				what,
				slowdown)
		}
	}
	if quickest > quickly {
		t.Errorf("a refusal took %v, want %v at most for 99 of 100 in one of the rounds", quickest,
			quickly)
	}
}

// overload is a sidecar with a connection to a slow Vault and one to a quick one.
type overload struct {
	t       *testing.T
	r       *sidecar
	network *network
	clients []secretsidecarv1.SecretServiceClient
	value   string
}

func newOverload(t *testing.T) *overload {
	t.Helper()
	s := newSandbox(t)
	slow, quick := vaulttest.RealPrivate(t), vaulttest.RealPrivate(t)
	o := &overload{t: t, network: s.newNetwork(slow.Address), value: s.newSecret()}
	for _, v := range []*vaulttest.Vault{slow, quick} {
		s.writeSecret(v, "secret/data/cached", "key", o.value)
	}
	o.r = s.start("--log-level", "warn", "--config", s.config(
		s.defaultLogin(slow).connection("slow", o.network.address,
			fmt.Sprintf("max_waiting: %d", mayWait), timeoutOf(overloadTimeout)),
		s.defaultLogin(quick).connection("quick", quick.Address),
	))
	for range 64 {
		o.clients = append(o.clients, secretsidecarv1.NewSecretServiceClient(s.dial()))
	}
	o.cached()
	return o
}

// cached asks for a secret of the slow connection that is in the cache.
func (o *overload) cached() {
	answer, err := o.r.Resolve(o.t.Context(),
		&secretsidecarv1.ResolveRequest{Connection: "slow", Path: "secret/data/cached/key"})
	if err != nil || answer.GetValue() != o.value {
		o.t.Errorf("a cached answer: %v, %v", answer, err)
	}
}

// read asks the quick connection for a secret that it has to read.
func (o *overload) read() {
	answer, err := o.r.Resolve(o.t.Context(),
		&secretsidecarv1.ResolveRequest{Connection: "quick", Path: "secret/data/cached/key",
			MaxAge: readVaultNow})
	if err != nil || answer.GetValue() != o.value || answer.GetSource() != fromVault {
		o.t.Errorf("a read of the other connection: %v, %v", answer, err)
	}
}

// measure returns the p99 of what does not wait for the slow Vault.
func (o *overload) measure() map[string]time.Duration {
	ctx, cancel := context.WithTimeout(o.t.Context(), measuring)
	defer cancel()
	var group sync.WaitGroup
	var cached, reads samples
	for range probers {
		group.Go(func() { cached.collect(ctx, 4*time.Millisecond, o.cached) })
	}
	group.Go(func() { reads.collect(ctx, 5*time.Millisecond, o.read) })
	group.Wait()
	return map[string]time.Duration{"cached answers": cached.p99(),
		"the other connection's reads": reads.p99()}
}

// samples are the durations of calls. They are safe for concurrent use.
type samples struct {
	mu   sync.Mutex
	took []time.Duration // guarded by mu
}

// collect measures a call at every tick.
func (s *samples) collect(ctx context.Context, every time.Duration, call func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		call()
		s.add(time.Since(began))
	}
}

func (s *samples) add(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, d)
}

func (s *samples) p99() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.took) == 0 {
		return 0
	}
	slices.Sort(s.took)
	return s.took[len(s.took)*99/100]
}

// storm is 12,000 callers, each of which asks the slow Vault for a secret of its own, and asks
// again.
type storm struct {
	o       *overload
	cancel  context.CancelFunc
	callers sync.WaitGroup
	refused samples

	mu     sync.Mutex
	counts map[failure]int // guarded by mu
	values int             // guarded by mu: answers that there can be none of
	told   int             // guarded by mu: answers that tell of the queue
}

// storm begins one and returns when as many callers wait as may.
func (o *overload) storm() *storm {
	o.t.Helper()
	ctx, cancel := context.WithCancel(o.t.Context())
	s := &storm{o: o, cancel: cancel, counts: map[failure]int{}}
	o.network.poison(latencyOf(overloadLatency))
	for i := range overloadCallers {
		s.callers.Go(func() { s.call(ctx, i) })
	}
	eventually(o.t, "the excess is refused", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.counts[overloaded] >= overloadCallers-mayWait
	})
	return s
}

var overloaded = failure{8, "OVERLOADED"}

// call asks until ctx ends. Who is refused waits for some seconds before the next try, as a
// well-made client does.
func (s *storm) call(ctx context.Context, caller int) {
	pause := time.NewTimer(rand.N(time.Second)) // they do not all come in the same microsecond
	defer pause.Stop()
	client := s.o.clients[caller%len(s.o.clients)]
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		began := time.Now()
		_, err := client.Resolve(ctx, &secretsidecarv1.ResolveRequest{Connection: "slow",
			Path: fmt.Sprintf("secret/data/cold-%d-%d/key", caller, turn)})
		if ctx.Err() != nil {
			return
		}
		s.note(err, time.Since(began))
		pause.Reset(time.Second + rand.N(2*time.Second))
	}
}

func (s *storm) note(err error, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := failureOf(err)
	if failed == nil {
		s.values++
		return
	}
	s.counts[*failed]++
	if *failed == unreachable && strings.Contains(err.Error(),
		"more slowly than secrets are asked for") {
		s.told++
	}
	if *failed == overloaded {
		s.refused.add(took)
	}
}

// awaitTimeouts waits until most of those who waited have been told that Vault is too slow, which
// takes half of the connection's timeout.
func (s *storm) awaitTimeouts() {
	s.o.t.Helper()
	eventually(s.o.t, "those who waited in vain are told so", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.counts[unreachable] >= mayWait*9/10
	})
}

// end makes Vault quick again and waits until everybody has gone.
func (s *storm) end() {
	s.cancel()
	s.callers.Wait()
	s.o.network.heal()
}

// report checks what the storm has met and what it cost, and returns the p99 of a refusal.
func (s *storm) report() (refusal time.Duration) {
	t := s.o.t
	s.mu.Lock()
	defer s.mu.Unlock()
	peak := s.o.r.memory("VmHWM")
	t.Logf("the storm met %v; p99 of a refusal %v; peak memory %d MB", s.counts, s.refused.p99(),
		peak>>20)
	for failed := range s.counts {
		if failed != overloaded && failed != unreachable && failed != notFoundSecret {
			t.Errorf("%d callers were answered %v", s.counts[failed], failed)
		}
	}
	if inVain := s.counts[unreachable]; s.told < inVain/2 {
		t.Errorf("%d of %d callers that waited in vain were told of the queue", s.told, inVain)
	}
	if s.values > 0 {
		t.Errorf("%d secrets that do not exist were answered", s.values)
	}
	if peak > mostMemory {
		t.Errorf("the process took %d MB, want %d at most", peak>>20, mostMemory>>20)
	}
	return s.refused.p99()
}

var notFoundSecret = failure{5, "SECRET_NOT_FOUND"}
