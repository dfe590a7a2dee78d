package conn

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// says is an override that answers in Vault's place.
func says(code int, body string) func(http.ResponseWriter, string) {
	return func(rw http.ResponseWriter, _ string) {
		rw.WriteHeader(code)
		_, _ = rw.Write([]byte(body))
	}
}

type overrides = map[string]func(http.ResponseWriter, string)

func (w *world) answerWith(answers overrides) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.override = answers
}

func (w *world) revokeTokenOf(c *Connection) {
	w.t.Helper()
	w.do("POST", "auth/token/revoke", fmt.Sprintf(`{"token":%q}`, c.login.State().Token.ID.Reveal()))
}

func TestOnePathThatFailsLeavesTheOthersAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		wantErr(t, c.WaitReady(t.Context()), nil)
		w.answerWith(overrides{"secret/data/bad": says(500, `{"errors":["internal error"]}`)})
		const ticks = 120 * 100 // two minutes, at every 10 ms
		for tick := range ticks {
			_, err := c.Read(t.Context(), "secret/data/bad", 0)
			wantErr(t, err, vault.ErrUnreachable)
			if tick%10 == 0 {
				mustRead(t, c)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := w.count("GET secret/data/bad"); n > 60 {
			t.Errorf("%d reads of the bad path in two minutes, want one in a back-off interval", n)
		}
	})
}

func TestAVaultThatFailsOnEveryPathCostsOneProbeInAnInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		wantErr(t, c.WaitReady(t.Context()), nil)
		w.forget()
		w.breakWith(status(500, `{"errors":["internal error"]}`, nil))
		for tick := range 60 * 100 { // a minute
			_, err := c.Read(t.Context(), fmt.Sprintf("secret/data/app%d", tick%500), 0)
			wantErr(t, err, vault.ErrUnreachable)
			time.Sleep(10 * time.Millisecond)
		}
		if n := w.total(); n > 30 {
			t.Errorf("%d calls in a minute, want one in a back-off interval", n)
		}
		w.breakWith(nil)
		time.Sleep(7 * time.Second)
		synctest.Wait()
		mustRead(t, c)
	})
}

func TestTheTokenIsRevokedThoughTheGateIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		wantErr(t, c.WaitReady(t.Context()), nil)
		w.answerWith(overrides{"secret/data/app": says(429, `{"errors":["quota"]}`)})
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrRateLimited)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil || w.count(revokeCall) != 1 {
			t.Errorf("%d revocations, %v", w.count(revokeCall), err)
		}
	})
}

func TestAVaultThatFallsSilentDuringALaterLoginIsOut(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		wantErr(t, c.WaitReady(t.Context()), nil)
		w.revokeTokenOf(c)
		w.breakWith(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/v1/secret/data/app" {
				return status(403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, nil)(r)
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrUnreachable)
	})
}

func TestAQuestionOnTheSideThatFailsIsNobodysOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do("POST", "sys/mounts/one", `{"type":"kv","options":{"version":"1"}}`)
		cfg := w.role(anHour)
		w.do("PUT", "sys/policies/acl/app", `{"policy":"path \"*\" {capabilities=[\"read\"]}"}`)
		c := w.open(cfg)
		wantErr(t, c.WaitReady(t.Context()), nil)
		w.answerWith(overrides{"sys/internal/ui/mounts/one/data/nope": says(503, `{"errors":["Vault is sealed"]}`)})
		_, err := c.Read(t.Context(), "one/data/nope", 0)
		wantErr(t, err, vault.ErrNotFound)
		if state := c.Status().State; state != StateReady {
			t.Errorf("the state is %v", state)
		}
		mustRead(t, c)
		w.answerWith(nil)
		_, err = c.Read(t.Context(), "one/data/nope", 0)
		wantErr(t, err, vault.ErrNotKVv2)
	})
}

func TestATokenThatVaultNeverKnowsIsAnOutageAndNoDenial(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		wantErr(t, c.WaitReady(t.Context()), nil)
		w.answerWith(overrides{"secret/data/app": says(403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`)})
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrUnreachable)
	})
}

func TestADenialIsFinalOnlyAfterAFreshLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		wantErr(t, c.WaitReady(t.Context()), nil)
		w.answerWith(overrides{
			"secret/data/app":    says(403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`),
			"auth/approle/login": says(503, `{"errors":["Vault is sealed"]}`),
		})
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrSealed)
	})
}

func TestJSONThatIsNotVaultsIsAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		wantErr(t, c.WaitReady(t.Context()), nil)
		for code, body := range map[int]string{
			404: `{"message":"no Route matched with those values"}`,
			403: `{"message":"Forbidden"}`,
			200: `{"status":"maintenance"}`,
		} {
			w.answerWith(overrides{"secret/data/app": says(code, body)})
			_, err := c.Read(t.Context(), "secret/data/app", 0)
			wantErr(t, err, vault.ErrUnreachable)
			w.answerWith(nil)
			time.Sleep(10 * time.Second)
			mustRead(t, c)
		}
	})
}

func TestReadsThatQueueInVainSayNothingAboutVault(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(`{"token_policies":"app"}`))
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.setLatency(DefaultTimeout * 6 / 10) // slow, but not too slow for a read that goes out at once
		const asked = 3 * maxConcurrentReads
		errs := make(chan error, asked)
		for range asked {
			go func() {
				_, err := c.Read(t.Context(), "secret/data/app", 0)
				errs <- err
			}()
		}
		answered := 0
		for range asked {
			err := <-errs
			if err == nil {
				answered++
				continue
			}
			call, ok := errors.AsType[*vault.CallError](err)
			if !ok || !errors.Is(err, vault.ErrUnreachable) || !strings.Contains(call.Remedy, "queue") {
				t.Fatalf("a read that never went out failed with %v", err)
			}
		}
		if answered != maxConcurrentReads {
			t.Errorf("%d reads were answered, want %d", answered, maxConcurrentReads)
		}
		if err := c.Admit("secret/data/app"); err != nil {
			t.Errorf("Vault counts as out: %v", err)
		}
	})
}
