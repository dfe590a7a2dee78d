package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// poll is a set of workers that ask for a few references in turn, all the time, past the cache. It
// is safe for concurrent use.
type poll struct {
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	counts map[string]int // answers by source or reason; guarded by mu
	failed error          // the last failure; guarded by mu
}

// startPoll starts workers. Each asks at every tick, unless it still waits for an answer. The
// test's end stops them.
func (r *sidecar) startPoll(workers int, every time.Duration, paths ...string) *poll {
	ctx, cancel := context.WithCancel(context.Background())
	p := &poll{cancel: cancel, counts: map[string]int{}}
	var next atomic.Int64
	for range workers {
		p.running.Go(func() {
			everyTick(ctx, every, func() {
				path := paths[int(next.Add(1)-1)%len(paths)]
				answer, err := r.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: path + "/key",
					MaxAge: readVaultNow})
				if ctx.Err() == nil {
					p.note(answer, err)
				}
			})
		})
	}
	r.sandbox.t.Cleanup(func() { p.stop() })
	return p
}

func (p *poll) note(answer *secretsidecarv1.ResolveResponse, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if failed := failureOf(err); failed != nil {
		p.counts[strings.TrimSpace(failed.code.String()+" "+failed.reason)]++
		p.failed = err
		return
	}
	p.counts[strings.TrimPrefix(answer.GetSource().String(), "SOURCE_")]++
}

// answers returns how often what was answered so far.
func (p *poll) answers() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// total counts all answers so far.
func (p *poll) total() int {
	sum := 0
	for _, n := range p.answers() {
		sum += n
	}
	return sum
}

// stop ends the workers and returns how often what was answered. Stopping twice is once.
func (p *poll) stop() map[string]int {
	p.cancel()
	p.running.Wait()
	return p.answers()
}

// requireFresh stops the workers and fails the test unless all but a few of their answers are fresh
// values.
func (p *poll) requireFresh(t *testing.T, what string, mayFail int) {
	t.Helper()
	counts := p.stop()
	total := p.total()
	t.Logf("%s: %v", what, counts)
	if bad := total - counts["VAULT"]; bad > mayFail || total == 0 {
		t.Errorf("%s: %d of %d reads failed, want %d at most; the last one: %v", what, bad, total,
			mayFail, p.failed)
	}
}

// await waits until the workers have so many answers. It gives up much later than they should have
// them.
func (p *poll) await(t *testing.T, total int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	tick := time.NewTicker(askWhileHealing)
	defer tick.Stop()
	for p.total() < total {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("%d answers within %v, want %d", p.total(), 2*patience, total)
			return
		}
	}
}

// newSecrets writes secrets that nobody has asked for yet, and returns their paths.
func (s *sandbox) newSecrets(v *vaulttest.Vault, prefix string, count int) []string {
	s.t.Helper()
	paths := make([]string, count)
	for i := range paths {
		paths[i] = fmt.Sprintf("%s-%d", prefix, i)
		s.writeSecret(v, paths[i], "key", s.newSecret())
	}
	return paths
}

// readEach reads each secret once past the cache, one at every tick, and fails the test for each
// that it does not get.
func (r *sidecar) readEach(paths []string) {
	t := r.sandbox.t
	t.Helper()
	tick := time.NewTicker(askWhileHealing)
	defer tick.Stop()
	failed, last := 0, error(nil)
	for _, path := range paths {
		<-tick.C
		if err := fresh(r, "", path+"/key")(t.Context()); err != nil {
			failed, last = failed+1, err
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d reads failed; the last one: %v", failed, len(paths), last)
	}
}

// underLoad asks for a value from several sides until stop is called, one of them past the cache. A
// failure or another value fails the test.
func (r *sidecar) underLoad(connection, path, want string) (stop func()) {
	t := r.sandbox.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var answers atomic.Int64
	for worker := range loadWorkers {
		client := secretsidecarv1.NewSecretServiceClient(r.sandbox.dial())
		request := &secretsidecarv1.ResolveRequest{Connection: connection, Path: path}
		if worker == 0 {
			request.MaxAge = readVaultNow
		}
		group.Go(func() {
			everyTick(ctx, askEvery, func() {
				answer, err := client.Resolve(t.Context(), request)
				if err != nil || answer.GetValue() != want {
					t.Errorf("under load: %v, %v", answer, err)
				}
				answers.Add(1)
			})
		})
	}
	return sync.OnceFunc(func() {
		cancel()
		group.Wait()
		if answers.Load() == 0 {
			t.Error("the load did nothing")
		}
	})
}
