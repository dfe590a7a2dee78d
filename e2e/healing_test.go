package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// How long it takes to heal: from the moment when Vault answers again to the first fresh value that
// a worker gets.

const (
	// healsWithin is the promise: a healthy Vault is used again within this time.
	healsWithin = 10 * time.Second
	// askWhileHealing is how often each worker asks meanwhile.
	askWhileHealing = 50 * time.Millisecond
)

// probe asks once, and returns nil for a fresh value.
type probe func(ctx context.Context) error

// fresh asks a sidecar for a reference past its cache.
func fresh(client secretsidecarv1.SecretServiceClient, connection, path string) probe {
	return func(ctx context.Context) error {
		_, err := client.Resolve(ctx,
			&secretsidecarv1.ResolveRequest{Connection: connection, Path: path,
				MaxAge: readVaultNow, MaxStale: durationpb.New(0)})
		return err
	}
}

// direct asks Vault at an address without a sidecar. Each request has a connection of its own, so
// that it finds the first moment at which anybody can be served there.
func direct(v *vaulttest.Vault, address, path string) probe {
	return func(ctx context.Context) error {
		client := http.Client{Timeout: time.Second,
			Transport: &http.Transport{DisableKeepAlives: true,
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/"+path,
			http.NoBody)
		if err != nil {
			return err
		}
		request.Header.Set("X-Vault-Token", v.RootToken)
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", response.StatusCode)
		}
		return nil
	}
}

// requireHealed is called when a fault has ended. It asks all the time until each worker has got a
// fresh value, and fails the test when the slowest needed more than healsWithin longer than the
// direct client, which may be nil.
//
// A busy machine breaks neither side of that. Time is counted in ticks that the test was given: a
// machine that lets the test wait lets the sidecar wait too. What Vault or the proxies before it
// need is in the direct client's time.
func requireHealed(t *testing.T, without probe, workers ...probe) {
	t.Helper()
	requireHealedWithin(t, healsWithin, without, workers...)
}

// requireHealedWithin is requireHealed with another bound.
func requireHealedWithin(t *testing.T, bound time.Duration, without probe, workers ...probe) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var ticks atomic.Int64
	var healed sync.WaitGroup
	go everyTick(ctx, askWhileHealing, func() { ticks.Add(1) })
	directly := make(chan int64, 1)
	if without == nil {
		directly <- 0
	} else {
		go func() { // ends with ctx
			if _, err := firstOf(ctx, without); err == nil {
				directly <- ticks.Load()
			}
		}()
	}
	began := time.Now()
	var asked, slowest, failed atomic.Int64
	for _, worker := range workers {
		healed.Go(func() {
			times, err := firstOf(ctx, worker)
			asked.Add(int64(times))
			if err != nil {
				t.Errorf("not healed within %v, after %d requests: %v", patience, times, err)
				failed.Add(1)
				return
			}
			for at := ticks.Load(); ; {
				if before := slowest.Load(); before >= at || slowest.CompareAndSwap(before, at) {
					return
				}
			}
		})
	}
	healed.Wait()
	if failed.Load() > 0 {
		return
	}
	took := time.Duration(slowest.Load()) * askWhileHealing
	itself := took // unless the direct client was served before the workers were
	select {
	case at := <-directly:
		itself = time.Duration(at) * askWhileHealing
	default:
	}
	t.Logf("healed within %.1fs (a direct client within %.1fs; %.1fs by the clock, after %d "+
		"requests)",
		took.Seconds(), itself.Seconds(), time.Since(began).Seconds(), asked.Load())
	if took-itself > bound {
		t.Errorf("healing took %v, a direct client needed %v: the bound is %v", took, itself, bound)
	}
}

// firstOf asks at every tick until one request succeeds, whether or not the earlier ones have been
// answered. It returns how often it asked. Its error is the last answer when ctx ends first.
func firstOf(ctx context.Context, ask probe) (asked int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var last atomic.Pointer[error]
	answered := make(chan struct{})
	done := sync.OnceFunc(func() { close(answered) })
	tick := time.NewTicker(askWhileHealing)
	defer tick.Stop()
	for {
		asked++
		go func() { // ends with its answer, at the latest when ctx does
			err := ask(ctx)
			if err == nil {
				done()
				return
			}
			if ctx.Err() == nil {
				last.Store(&err)
			}
		}()
		select {
		case <-tick.C:
		case <-answered:
			return asked, nil
		case <-ctx.Done():
			if said := last.Load(); said != nil {
				return asked, *said
			}
			return asked, ctx.Err()
		}
	}
}
