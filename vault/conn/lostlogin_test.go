package conn

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// waysToLose are what becomes of Vault's answer on its way back.
var waysToLose = map[string]fault{
	"a page that says 502":  status(502, "<html>bad gateway</html>", nil),
	"the connection is cut": func(*http.Request) (*http.Response, error) { return nil, io.EOF },
	"nothing":               hang,
}

// losing lets Vault judge logins, and loses what it answers. The rest is left to others.
func (w *world) losing(way, others fault) {
	w.breakWith(func(req *http.Request) (*http.Response, error) {
		if req.URL.Path != "/v1/"+loginPath {
			return others(req)
		}
		if _, err := w.answer(req, nil); err != nil {
			return nil, err
		}
		if trace := httptrace.ContextClientTrace(req.Context()); trace != nil && trace.WroteHeaders != nil {
			trace.WroteHeaders() // as a connection would
		}
		return way(req)
	})
}

func (w *world) answerAll(req *http.Request) (*http.Response, error) { return w.answer(req, nil) }

func TestWrongLoginsWhoseAnswersAreLostNeverLockARole(t *testing.T) {
	for name, way := range waysToLose {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				cfg := w.role(anHour)
				good := cfg.SecretID
				cfg.SecretID.Value = redact.New("wrong")
				w.losing(way, w.answerAll)
				c := w.open(cfg)
				for range 14 {
					time.Sleep(time.Minute)
					_ = c.RenewLogin(t.Context())
					_ = c.Test(t.Context(), nil)
				}
				if n := w.count(loginCall); n != 3 {
					t.Errorf("%d wrong logins reached Vault, want 3: it locks the role at the fifth", n)
				}
				w.breakWith(nil)
				cfg.SecretID, cfg.Budget = good, nil
				if report, _ := TestConfig(t.Context(), cfg, nil); !report.OK() {
					t.Errorf("the role is locked: %+v", report.Checks)
				}
			})
		})
	}
}

func TestALoginWhoseAnswerIsLostIsFollowedByAnotherOnlyOnceVaultAnswersForItsHealth(t *testing.T) {
	for name, way := range waysToLose {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				cfg := w.role(anHour)
				w.losing(way, way)
				cfg.Timeout = 5 * time.Second // how long a login may hang that was under way when it heals
				c := w.open(cfg)
				time.Sleep(14 * time.Minute) // what was lost is forgotten after 15, as Vault forgets it
				synctest.Wait()
				if n := w.count(loginCall); n != 1 {
					t.Errorf("%d logins while nothing came back, want 1", n)
				}
				if n := w.count(healthPath); n == 0 {
					t.Error("nobody has asked for Vault's health")
				}
				w.forget()
				w.breakWith(nil)
				readWithin10s(t, c)
				health, login := slices.Index(w.requests, healthPath), slices.Index(w.requests, loginCall)
				if health < 0 || health > login {
					t.Errorf("the health was not asked for before the login: %v", w.requests)
				}
			})
		})
	}
}

func TestLostAnswersToCredentialsThatVaultHasAcceptedSpendNothing(t *testing.T) {
	for name, way := range waysToLose {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				cfg := w.role(`{"token_policies":"app","token_ttl":"60s","token_type":"batch"}`)
				cfg.Timeout = 5 * time.Second // how long a login may hang that was under way when it heals
				c := w.open(cfg)
				mustRead(t, c)
				w.losing(way, w.answerAll)
				time.Sleep(30 * time.Minute)
				if n := w.count(loginCall); n < 10 {
					t.Errorf("%d logins in half an hour: this test shows nothing", n)
				}
				w.breakWith(nil)
				readWithin10s(t, c)
			})
		})
	}
}
