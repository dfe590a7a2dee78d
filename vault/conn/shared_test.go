package conn

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

func contextOf(t *testing.T, timeout time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), timeout)
}

// crowd runs what 200 callers ask for at once.
func crowd(ask func()) {
	var all sync.WaitGroup
	for range 200 {
		all.Go(ask)
	}
	all.Wait()
}

func TestACrowdThatAsksForANewLoginSharesOne(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.setLatency(100 * time.Millisecond)
		renew := func() {
			if err := c.RenewLogin(t.Context()); err != nil {
				t.Errorf("renew the login: %v", err)
			}
		}
		w.forget()
		crowd(renew)
		time.Sleep(9 * time.Second)
		crowd(renew)
		synctest.Wait()
		if n := w.count(loginCall); n != 1 {
			t.Errorf("%d logins for 400 callers within 10 s, want 1", n)
		}
		time.Sleep(2 * time.Second)
		crowd(renew)
		if n := w.count(loginCall); n != 2 {
			t.Errorf("%d logins 10 s later, want another one", n)
		}
	})
}

func TestACrowdThatAsksForALoginThatFailsSharesItsFailureAndALaterOneTriesAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.setLatency(100 * time.Millisecond)
		w.failing(waysToFail["500"], loginPath)
		w.forget()
		crowd(func() { wantErrorOf(t, c.RenewLogin(t.Context())) })
		if n := w.count(loginCall); n != 1 {
			t.Errorf("%d logins, want 1", n)
		}
		w.breakWith(nil)
		time.Sleep(login.SharedFor)
		if err := c.RenewLogin(t.Context()); err != nil {
			t.Errorf("a login that failed is remembered: %v", err)
		}
	})
}

// TestALoopOfOneWorkerCostsALoginInTenSeconds counts a new login and the login of a test each for itself.
func TestALoopOfOneWorkerCostsALoginInTenSeconds(t *testing.T) {
	renew := func(t *testing.T, c *Connection) { _ = c.RenewLogin(t.Context()) }
	test := func(t *testing.T, c *Connection) {
		_ = c.Test(t.Context(), &vault.Reference{Path: "secret/data/app", Key: "key"})
	}
	both := func(t *testing.T, c *Connection) { renew(t, c); test(t, c) }
	for name, ask := range map[string]struct {
		loop  func(*testing.T, *Connection)
		kinds int
	}{"renew_login": {renew, 1}, "tests": {test, 1}, "both": {both, 2}} {
		for outcome, answer := range map[string]func(w *world) fault{
			"succeed":       func(w *world) fault { return func(r *http.Request) (*http.Response, error) { return w.answer(r, nil) } },
			"fail with 500": func(*world) fault { return waysToFail["500"] },
			"alternate": func(w *world) fault {
				var calls atomic.Int32
				return func(r *http.Request) (*http.Response, error) {
					if calls.Add(1)%2 == 0 {
						return waysToFail["500"](r)
					}
					return w.answer(r, nil)
				}
			},
			"are limited":  func(*world) fault { return waysToFail["429"] },
			"hang":         func(*world) fault { return hang },
			"are rejected": func(*world) fault { return status(400, `{"errors":["invalid role or secret ID"]}`, nil) },
		} {
			t.Run(name+" that "+outcome, func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					c := w.open(w.role(anHour))
					mustRead(t, c)
					w.forget()
					w.failing(answer(w), loginPath)
					began := time.Now()
					for range 600 {
						ask.loop(t, c)
						time.Sleep(100 * time.Millisecond)
					}
					took := time.Since(began)
					if n, most := w.count(loginCall), ask.kinds*(1+int(took/login.SharedFor)); n == 0 || n > most {
						t.Errorf("%d logins in %v, want at most %d", n, took, most)
					}
				})
			})
		}
	}
}

func wantErrorOf(t *testing.T, err error) {
	t.Helper()
	if !vault.Outage(err) {
		t.Errorf("got %v, want an outage", err)
	}
}

func TestACrowdThatTestsAConnectionSharesOneLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.setLatency(100 * time.Millisecond)
		test := func() {
			if report := c.Test(t.Context(), &vault.Reference{Path: "secret/data/app", Key: "key"}); !report.OK() {
				t.Errorf("report: %+v", report.Checks)
			}
		}
		w.forget()
		crowd(test)
		time.Sleep(5 * time.Second)
		crowd(test)
		if n := w.count(loginCall); n != 1 {
			t.Errorf("%d logins for 400 tests within 10 s, want 1", n)
		}
		time.Sleep(time.Minute)
		if n := w.count(revokeCall); n != 1 {
			t.Errorf("%d tokens were revoked, want the tests' one", n)
		}
		mustRead(t, c)
	})
}

func TestATimeoutThatChangesCostsNothingAndCountsFromTheNextReadOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.forget()
		c.SetTimeout(3 * time.Second)
		if w.total() != 0 {
			t.Errorf("a change of the timeout asks Vault: %v", w.requests)
		}
		w.setLatency(time.Minute)
		began := time.Now()
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrUnreachable)
		if took := time.Since(began); took != 3*time.Second || c.Timeout() != took {
			t.Errorf("the read took %v", took)
		}
		if c.SetTimeout(0); c.Timeout() != DefaultTimeout {
			t.Errorf("a timeout of 0 is %v", c.Timeout())
		}
	})
}

func TestADeniedReadIsToldToPeopleOnceAMinuteAndWithoutItsPath(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		deny := func() {
			_, err := c.Read(t.Context(), "private/data/payroll", 0)
			wantErr(t, err, vault.ErrPermissionDenied)
		}
		for range 300 {
			deny()
			time.Sleep(200 * time.Millisecond)
		}
		if n := strings.Count(w.logs.String(), "Vault denies a read"); n != 1 {
			t.Errorf("said %d times within a minute", n)
		}
		deny()
		if n := strings.Count(w.logs.String(), "Vault denies a read"); n != 2 {
			t.Errorf("said %d times after a minute", n)
		}
		s := c.Status()
		if wantErr(t, s.LastError, vault.ErrPermissionDenied); s.State != StateReady {
			t.Errorf("the state is %v", s.State)
		}
		if !strings.Contains(remedy(s.LastError), "app") {
			t.Errorf("the remedy names no policy: %s", remedy(s.LastError))
		}
		for _, told := range []string{w.logs.String(), s.LastError.Error(), remedy(s.LastError)} {
			if strings.Contains(told, "payroll") || strings.Contains(told, "private") {
				t.Errorf("the path is told: %s", told)
			}
		}
		mustRead(t, c) // of another path: the denial stays
		wantErr(t, c.Status().LastError, vault.ErrPermissionDenied)
		w.do("PUT", "sys/policies/acl/app", `{"policy":"path \"*\" {capabilities=[\"read\"]}"}`)
		w.do("POST", "sys/mounts/private", `{"type":"kv","options":{"version":"2"}}`)
		w.do("POST", "private/data/payroll", `{"data":{"key":"value"}}`)
		if _, err := c.Read(t.Context(), "private/data/payroll", 0); err != nil {
			t.Fatal(err)
		}
		if err := c.Status().LastError; err != nil {
			t.Errorf("after the read works: %v", err)
		}
	})
}

func TestADenialThatNobodyMeetsAgainIsForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		_, err := c.Read(t.Context(), "private/data/payroll", 0)
		wantErr(t, err, vault.ErrPermissionDenied)
		time.Sleep(denialShownFor + time.Second)
		if err := c.Status().LastError; err != nil {
			t.Errorf("after %v: %v", denialShownFor, err)
		}
	})
}

func TestTheHTTPStatusOfAnOutageIsInTheLogAtInfo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.breakWith(status(502, "<html>bad gateway</html>", nil))
		for range 5 {
			_, _ = c.Read(t.Context(), "secret/data/app", 0)
			time.Sleep(time.Second)
		}
		for line := range strings.Lines(w.logs.String()) {
			if strings.Contains(line, "level=WARN") && strings.Contains(line, "status=502") && strings.Contains(line, "gateway") {
				return
			}
		}
		t.Errorf("no warning tells the status and who answers:\n%s", w.logs)
	})
}

func TestNobodyIsAdvisedToGoWhereARedirectLeads(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.breakWith(status(307, "", map[string][]string{"Location": {"https://dead-leader.example:8200/v1/secret/data/app"}}))
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrUnreachable)
		if text := remedy(err); strings.Contains(text, "dead-leader") || !strings.Contains(text, "election") || !strings.Contains(text, "307") {
			t.Errorf("the remedy is %q", text)
		}
		w.breakWith(nil)
		readWithin10s(t, c)
	})
}
