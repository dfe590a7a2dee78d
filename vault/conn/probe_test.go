package conn

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

const healthPath = "GET sys/health"

// failReads lets all calls but reads of secrets through.
func (w *world) failReads(status int) {
	w.breakWith(func(r *http.Request) (*http.Response, error) {
		if !strings.HasPrefix(r.URL.Path, "/v1/secret/") {
			return w.answer(r, nil)
		}
		return w.answer(r, func(out http.ResponseWriter, _ string) {
			out.WriteHeader(status)
			_, _ = out.Write([]byte(`{"errors":["broken"]}`))
		})
	})
}

func TestTheStateShowsTheEndOfAnOutageInWhichNobodyAsks(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.logInWith(t, w.role(`{"token_policies":"app","token_ttl":"24h"}`))
		w.breakWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") })
		_, _ = c.Read(t.Context(), "secret/data/app", 0)
		time.Sleep(10 * time.Minute)
		if state := c.Status().State; state != StateDegraded {
			t.Errorf("in the outage the state is %v", state)
		}
		if probes := w.count(healthPath); probes < 30 || probes > 61 {
			t.Errorf("%d probes in 10 minutes, want one in 10 s", probes)
		}
		w.breakWith(nil)
		time.Sleep(idleProbePause + time.Second)
		if state := c.Status().State; state != StateReady {
			t.Errorf("after the outage the state is %v", state)
		}
		w.forget()
		time.Sleep(time.Hour)
		if total := w.total(); total != 0 {
			t.Errorf("%d calls while all is well and nobody asks", total)
		}
	})
}

func TestTheStateShowsThatOnePathAloneHasFailedOnlyForAMoment(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.logInWith(t, w.role(`{"token_policies":"app","token_ttl":"24h"}`))
		w.failReads(http.StatusInternalServerError)
		_, _ = c.Read(t.Context(), "secret/data/app", 0)
		synctest.Wait()
		if state := c.Status().State; state != StateDegraded {
			t.Errorf("after a failed read the state is %v", state)
		}
		time.Sleep(idleProbePause + time.Second)
		if state := c.Status().State; state != StateReady || w.count(healthPath) != 1 {
			t.Errorf("the state is %v after %d probes", state, w.count(healthPath))
		}
	})
}

func TestReadsThatGoOnFailingAreTheOnlyProbes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.logInWith(t, w.role(`{"token_policies":"app","token_ttl":"24h"}`))
		w.failReads(http.StatusServiceUnavailable)
		for range 600 {
			_, _ = c.Read(t.Context(), "secret/data/app", 0)
			time.Sleep(time.Second)
		}
		if probes := w.count(healthPath); probes != 0 {
			t.Errorf("%d probes beside the reads: each would open the gate for reads that fail", probes)
		}
	})
}

// Paths that hang open their mount's circuit. After an outage on top they take turns with the good
// path, and each of their turns takes the whole timeout.
func TestPathsThatHangDoNotTakeTheTurnsOfOneThatIsWellAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.logInWith(t, w.role(`{"token_policies":"app","token_ttl":"24h"}`))
		hang := func(r *http.Request) (*http.Response, error) {
			if strings.HasPrefix(r.URL.Path, "/v1/secret/data/hangs") {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return w.answer(r, nil)
		}
		w.breakWith(hang)
		ctx, stop := context.WithCancel(t.Context())
		var pollers sync.WaitGroup
		defer func() { stop(); pollers.Wait() }()
		for i := range 20 {
			pollers.Go(func() {
				for ctx.Err() == nil {
					_, _ = c.Read(ctx, fmt.Sprintf("secret/data/hangs%d", i), 0)
					vault.Wait(ctx, 50*time.Millisecond)
				}
			})
		}
		ask := func(times int) {
			for range times {
				_, _ = c.Read(ctx, "secret/data/app", 0)
				time.Sleep(300 * time.Millisecond)
			}
		}
		ask(100)
		w.breakWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") })
		ask(100)
		w.breakWith(hang)
		wellAt := time.Now()
		for {
			if _, err := c.Read(ctx, "secret/data/app", 0); err == nil {
				break
			}
			time.Sleep(300 * time.Millisecond)
		}
		if took := time.Since(wellAt); took > 10*time.Second+c.Timeout() {
			t.Errorf("the good path is read %v after Vault is well", took)
		}
	})
}
