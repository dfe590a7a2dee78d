package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

const (
	loadWorkers = 4
	askEvery    = 25 * time.Millisecond
	writeEvery  = 60 * time.Millisecond
	// maxComplaints keeps a test that has gone wrong readable.
	maxComplaints = 10
)

// loadTTL and loadStale are the cache settings of the connections under load.
const (
	loadTTL   = time.Second
	loadStale = time.Hour
	loadCache = "cache: {ttl: 1s, max_stale: 1h, negative_ttl: 1s}"
)

// load is a set of workers that ask all the time and judge every answer, while the secrets are
// rewritten and invalidated. Its methods are for the test's goroutine.
type load struct {
	t       *testing.T
	client  secretsidecarv1.SecretServiceClient
	targets []*target
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu         sync.Mutex
	phases     []expectation  // guarded by mu; the last one is now
	counts     map[string]int // answers by connection and source or reason; guarded by mu
	complaints int            // guarded by mu
}

// newLoad writes the secrets, warms the sidecar's cache and starts the workers. The test's end
// stops them.
func newLoad(t *testing.T, r *sidecar, targets ...*target) *load {
	t.Helper()
	l := &load{t: t, targets: targets, phases: []expectation{healthy}, counts: map[string]int{},
		client: secretsidecarv1.NewSecretServiceClient(r.sandbox.dial())}
	l.awaitValues()
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for range loadWorkers {
		l.running.Go(func() { everyTick(ctx, askEvery, func() { l.askOnce(ctx) }) })
	}
	l.running.Go(func() { everyTick(ctx, writeEvery, l.writeOnce) })
	l.running.Go(func() { everyTick(ctx, 4*writeEvery, func() { l.invalidateOnce(ctx) }) })
	t.Cleanup(func() { l.stop() })
	return l
}

// expect says what may be answered from now on. A request may get whatever was expected at any time
// while it was under way.
func (l *load) expect(e expectation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phases = append(l.phases, e)
}

// heal is called when a fault has ended. It fails the test unless every secret is read from Vault
// again in time, and from then on expects nothing but fresh values.
func (l *load) heal() {
	l.t.Helper()
	l.requireHealed()
	l.expect(healthy)
}

// requireHealed is heal for a fault after which another one goes on.
func (l *load) requireHealed() {
	l.t.Helper()
	var without probe
	var workers []probe
	for _, target := range l.targets {
		if target.direct != nil {
			without = target.direct
		}
		for _, path := range loadPaths {
			workers = append(workers, fresh(l.client, target.connection, path+"/key"))
		}
	}
	requireHealed(l.t, without, workers...)
}

// during lets the load run for a while.
func (l *load) during(d time.Duration) {
	l.t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// someAnswers is how many answers show that something goes on.
const someAnswers = 20

// meets lets the load run until each of these has been answered someAnswers times more. A busy
// machine only takes longer.
func (l *load) meets(what ...string) {
	l.t.Helper()
	before := l.answers()
	for _, one := range what {
		eventually(l.t, fmt.Sprintf("%q is answered", one), func() bool {
			return l.answers()[one] >= before[one]+someAnswers
		})
	}
}

// answers returns how often what was answered so far, by connection and source or reason.
func (l *load) answers() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts)
}

// stop ends the load and returns how often what was answered. Stopping twice is once.
func (l *load) stop() map[string]int {
	l.cancel()
	l.running.Wait()
	return l.answers()
}

// requireSome fails the test unless each of these was answered at least once. A fault that nobody
// has met proves nothing.
func (l *load) requireSome(what ...string) {
	l.t.Helper()
	counts := l.stop()
	l.t.Logf("answers: %v", counts)
	for _, one := range what {
		if counts[one] == 0 {
			l.t.Errorf("nobody was answered %q", one)
		}
	}
}

// awaitValues waits until every secret of every target is read from Vault.
func (l *load) awaitValues() {
	l.t.Helper()
	for _, target := range l.targets {
		for _, path := range loadPaths {
			var last error
			eventually(l.t, fmt.Sprintf("%s of %s is read from Vault", path, target.connection),
				func() bool {
					last = fresh(l.client, target.connection, path+"/key")(l.t.Context())
					return last == nil
				})
		}
	}
}

// askOnce asks for one secret, or for a batch of them, in one of the ways that workers ask.
func (l *load) askOnce(ctx context.Context) {
	target := l.targets[rand.IntN(len(l.targets))]
	if rand.IntN(4) == 0 {
		l.askBatch(ctx, target)
		return
	}
	request, q := target.question()
	phase := l.phase()
	answer, err := l.client.Resolve(ctx, request)
	if ctx.Err() != nil {
		return
	}
	l.verify(target, q, phase, answer, failureOf(err))
}

func (l *load) askBatch(ctx context.Context, target *target) {
	batch := &secretsidecarv1.BatchResolveRequest{}
	questions := make([]question, 4)
	for i := range questions {
		request, q := target.question()
		batch.Requests, questions[i] = append(batch.Requests, request), q
	}
	phase := l.phase()
	answer, err := l.client.BatchResolve(ctx, batch)
	if ctx.Err() != nil {
		return
	}
	for i, q := range questions {
		if err != nil {
			l.verify(target, q, phase, nil, failureOf(err))
			continue
		}
		result := answer.GetResults()[i]
		var failed *failure
		if e := result.GetError(); e != nil {
			failed = &failure{codes.Code(e.GetCode()), e.GetReason()} // #nosec G115 -- a code of gRPC
		}
		l.verify(target, q, phase, result.GetSecret(), failed)
	}
}

// writeOnce writes a new version of one secret. While Vault is out of order it may fail.
func (l *load) writeOnce() {
	target := l.targets[rand.IntN(len(l.targets))]
	err := target.history.write(loadPaths[rand.IntN(len(loadPaths))])
	if err != nil && target.isCalm {
		l.complain("%s: %v", target.connection, err)
	}
}

// invalidateOnce drops one secret, which raises a fence.
func (l *load) invalidateOnce(ctx context.Context) {
	target := l.targets[rand.IntN(len(l.targets))]
	path := fencedPaths[rand.IntN(len(fencedPaths))]
	called, phase := time.Now(), l.phase()
	_, err := l.client.Invalidate(ctx,
		&secretsidecarv1.InvalidateRequest{Connection: target.connection, Path: path + "/key"})
	switch failed := failureOf(err); {
	case failed == nil:
		target.history.fenced(path, called)
	case ctx.Err() == nil && !slices.Contains(l.since(phase).failures, *failed):
		l.complain("Invalidate: %v", err)
	}
}

func (l *load) phase() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.phases) - 1
}

// since returns all that was expected since a phase.
func (l *load) since(phase int) expectation {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all expectation
	for _, one := range l.phases[phase:] {
		all.outage = append(all.outage, one.outage...)
		all.failures = append(all.failures, one.failures...)
	}
	return all
}

func (l *load) count(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
}

func (l *load) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complaints++
	if l.complaints <= maxComplaints {
		l.t.Errorf(format, args...)
	}
}
