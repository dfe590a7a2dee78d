package conn

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

const anHour = `{"token_policies":"app","token_ttl":"1h"}`

func TestOneLoginServesManyReads(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		for range 10 {
			mustRead(t, c)
		}
		if w.count(loginCall) != 1 || w.count(readCall) != 10 || w.total() != 11 {
			t.Errorf("requests: %v", w.requests)
		}
		status := c.Status()
		if status.State != StateReady || !status.TokenValid || status.LastError != nil {
			t.Errorf("status: %+v", status)
		}
	})
}

func TestWrongSecretIDMakesOneLoginInFiveMinutes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		cfg.SecretID.Value = redact.New("wrong")
		c := w.open(cfg)
		wantErr(t, c.WaitReady(t.Context()), vault.ErrLoginRejected)
		for range 299 {
			_, err := c.Read(t.Context(), "secret/data/app", 0)
			wantErr(t, err, vault.ErrLoginRejected)
			time.Sleep(time.Second)
		}
		if n := w.count(loginCall); n != 1 {
			t.Errorf("%d logins in 5 minutes, want 1", n)
		}
		if s := c.Status(); s.State != StateRejected || s.TokenValid {
			t.Errorf("status: %+v", s)
		}
		time.Sleep(time.Hour)
		if n := w.count(loginCall); n != 9 {
			t.Errorf("%d logins in 65 minutes, want three in every 25", n)
		}
	})
}

func TestShortTokenWithMaxTTLNeverFails(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.setLatency(5 * time.Millisecond)
		c := w.open(w.role(`{"token_policies":"app","token_ttl":"2s","token_max_ttl":"6s"}`))
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			mustRead(t, c)
		}
		logins, renewals := w.count(loginCall), w.count(renewCall)
		if logins < 5 || logins > 9 || renewals < 12 || renewals > 30 {
			t.Errorf("%d logins and %d renewals in 30 s", logins, renewals)
		}
		if revokes := w.count(revokeCall); revokes == 0 || revokes > logins-1 {
			t.Errorf("%d tokens revoked of %d", revokes, logins-1)
		}
	})
}

func TestPeriodicTokenIsRenewedAndNeverReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.open(w.role(`{"token_policies":"app","token_period":"1m"}`))
		time.Sleep(time.Hour)
		if l, r := w.count(loginCall), w.count(renewCall); l != 1 || r < 80 || r > 100 {
			t.Errorf("%d logins and %d renewals in an hour", l, r)
		}
	})
}

func TestBatchTokenIsReplacedBeforeItExpires(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(`{"token_policies":"app","token_ttl":"60s","token_type":"batch"}`))
		for range 600 {
			mustRead(t, c)
			time.Sleep(time.Second)
		}
		if l := w.count(loginCall); l < 14 || l > 17 || w.count(renewCall) != 0 || w.count(revokeCall) != 0 {
			t.Errorf("%d logins, %d renewals, %d revocations", l, w.count(renewCall), w.count(revokeCall))
		}
	})
}

func TestPolicyWithoutRenewSelfMakesNoStormAndOneLogLine(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(`{"token_policies":"app","token_ttl":"60s","token_no_default_policy":true}`))
		for range 600 {
			mustRead(t, c)
			time.Sleep(time.Second)
		}
		if l := w.count(loginCall); l > 17 || w.count(renewCall) != 1 {
			t.Errorf("%d logins, %d renewals", l, w.count(renewCall))
		}
		if n := strings.Count(w.logs.String(), "does not renew"); n != 1 {
			t.Errorf("said %d times that the token cannot be renewed", n)
		}
	})
}

func TestTokenThatNeverExpiresIsLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.override = map[string]func(http.ResponseWriter, string){"auth/approle/login": func(out http.ResponseWriter, _ string) {
			fmt.Fprint(out, `{"auth":{"client_token":"root","lease_duration":0,"renewable":false,"token_type":"service"}}`)
		}}
		c := w.open(w.role(anHour))
		time.Sleep(100 * time.Hour)
		mustRead(t, c)
		if w.total() != 2 {
			t.Errorf("requests: %v", w.requests)
		}
		w.override = nil
	})
}

func TestLimitedUseTokenIsRejectedAndGivenBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(`{"token_policies":"app","token_num_uses":3}`))
		err := c.WaitReady(t.Context())
		wantErr(t, err, vault.ErrLoginRejected)
		if !strings.Contains(remedy(err), "token_num_uses=0") {
			t.Errorf("remedy: %s", remedy(err))
		}
		if w.count(loginCall) != 1 || w.count(revokeCall) != 1 {
			t.Errorf("requests: %v", w.requests)
		}
	})
}

func TestRoleWithoutSecretID(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do("POST", "auth/approle/role/app", `{"token_policies":"app","bind_secret_id":false,"token_bound_cidrs":"0.0.0.0/0"}`)
		c := w.open(w.config(data(w.do("GET", "auth/approle/role/app/role-id", ""), "role_id"), ""))
		mustRead(t, c)
	})
}

func TestRevokedTokenCostsOneLoginAndNoFailure(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.do("POST", "auth/token/revoke", `{"token":"`+c.login.State().Token.ID.Reveal()+`"}`)
		w.setLatency(10 * time.Millisecond)
		var readers sync.WaitGroup
		for range 200 {
			readers.Go(func() {
				if _, err := c.Read(t.Context(), "secret/data/app", 0); err != nil {
					t.Errorf("read: %v", err)
				}
			})
		}
		readers.Wait()
		if n := w.count(loginCall); n != 2 {
			t.Errorf("%d logins, want 2", n)
		}
	})
}

func TestDeniedReadCostsOneFreshLoginAMinute(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		for range 59 {
			_, err := c.Read(t.Context(), "elsewhere/data/app", 0)
			wantErr(t, err, vault.ErrPermissionDenied)
			time.Sleep(time.Second)
		}
		if n := w.count(loginCall); n != 2 {
			t.Errorf("%d logins in a minute, want 2", n)
		}
		mustRead(t, c)
	})
}

func TestWidenedRolePolicyIsTakenUpByTheFreshLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(`{"token_policies":"default","token_ttl":"1h"}`))
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.do("POST", "auth/approle/role/app", anHour)
		mustRead(t, c)
	})
}

func TestAnOutageIsCheap(t *testing.T) {
	for name, fault := range map[string]func(*http.Request) (*http.Response, error){
		"refused": refused, "500": status(500, `{"errors":["x"]}`, nil), "sealed": status(503, `{"errors":["Vault is sealed"]}`, nil),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				c := w.open(w.role(anHour))
				mustRead(t, c)
				w.breakWith(fault)
				w.forget()
				for range 2000 { // 200 s
					if _, err := c.Read(t.Context(), "secret/data/app", 0); !vault.Outage(err) {
						t.Fatalf("read: %v", err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if n := w.total(); n > 60 || n < 30 {
					t.Errorf("%d probes in 200 s", n)
				}
				_, _ = c.Read(t.Context(), "secret/data/app", 0) // takes the probe if it is due
				if c.Status().State != StateDegraded {
					t.Errorf("status %+v, admit %v", c.Status(), c.Admit("secret/data/app"))
				}
				w.breakWith(nil)
				time.Sleep(7 * time.Second)
				mustRead(t, c)
				if c.Status().State != StateReady || c.Admit("secret/data/app") != nil {
					t.Errorf("status %+v, admit %v", c.Status(), c.Admit("secret/data/app"))
				}
			})
		})
	}
}

func TestAnOutageAtStartIsCheapAndEndsByItself(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		w.breakWith(refused)
		c := w.open(cfg)
		for range 1000 { // 100 s
			_, err := c.Read(t.Context(), "secret/data/app", 0)
			wantErr(t, err, vault.ErrUnreachable)
			time.Sleep(100 * time.Millisecond)
		}
		if n := w.total(); n > 35 || n < 15 {
			t.Errorf("%d probes in 100 s", n)
		}
		if s := c.Status(); s.State != StateDegraded || s.LastError == nil {
			t.Errorf("status: %+v", s)
		}
		w.breakWith(nil)
		time.Sleep(7 * time.Second)
		mustRead(t, c)
	})
}

func TestTokenThatExpiresInAnOutageIsReplacedWhenItEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(`{"token_policies":"app","token_ttl":"1m"}`))
		mustRead(t, c)
		w.breakWith(refused)
		time.Sleep(10 * time.Minute)
		if s := c.Status(); s.TokenValid || s.State != StateDegraded {
			t.Errorf("status: %+v", s)
		}
		if n := w.total(); n > 200 {
			t.Errorf("%d requests in 10 minutes of outage", n)
		}
		w.breakWith(nil)
		time.Sleep(7 * time.Second)
		mustRead(t, c)
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.breakWith(status(429, `{"errors":["too many"]}`, http.Header{"Retry-After": {"30"}}))
		w.forget()
		for range 24 {
			_, err := c.Read(t.Context(), "secret/data/app", 0)
			wantErr(t, err, vault.ErrRateLimited)
			time.Sleep(time.Second)
		}
		if n := w.total(); n != 3 {
			t.Errorf("%d requests in 24 s, want one in 8 s: a Vault that is well again is used within 10 s", n)
		}
	})
}

func TestSilentVaultIsAnOutageButAnImpatientCallerIsNot(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.setLatency(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Read(ctx, "secret/data/app", 0)
		wantErr(t, err, context.DeadlineExceeded)
		if err := c.Admit("secret/data/app"); err != nil {
			t.Errorf("an impatient caller closed the gate: %v", err)
		}
		same, cancelSame := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancelSame()
		_, err = c.Read(same, "secret/data/app", 0)
		wantErr(t, err, vault.ErrUnreachable)
		if err := c.Admit("secret/data/app"); err == nil {
			t.Error("a silent Vault did not close the gate")
		}
	})
}

func TestReadWithoutTokenWaitsForTheLoginAndNoLongerThanTheTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		cfg.Timeout = 3 * time.Second
		w.setLatency(2 * time.Second)
		mustReadSoon := w.open(cfg)
		_, err := mustReadSoon.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrUnreachable) // 2 s for the login, and no answer within the third
	})
}

func TestRenewLoginSwapsTheTokenAndRevokesTheOld(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		old := c.login.State().Token.ID
		if err := c.RenewLogin(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c.login.State().Token.ID == old || w.count(revokeCall) != 1 {
			t.Errorf("the token was not swapped: %v", w.requests)
		}
		w.breakWith(refused)
		wantErr(t, c.RenewLogin(t.Context()), nil) // who asks again within 10 s gets that one's outcome
		time.Sleep(10 * time.Second)
		wantErr(t, c.RenewLogin(t.Context()), vault.ErrUnreachable)
		w.breakWith(nil)
		time.Sleep(time.Second)
		mustRead(t, c)
	})
}

func TestCloseRevokesTheToken(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.count(revokeCall) != 1 {
			t.Errorf("requests: %v", w.requests)
		}
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrClosed)
		wantErr(t, c.RenewLogin(t.Context()), vault.ErrClosed)
	})
}

func TestCloseInTheMiddleOfALoginRevokesWhatItGrants(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		w.setLatency(time.Second)
		c := w.open(cfg)
		synctest.Wait()
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.count(loginCall) != 1 || w.count(revokeCall) != 1 {
			t.Errorf("requests: %v", w.requests)
		}
	})
}

func TestCloseGivesUpWhenItsContextEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		w.setLatency(time.Hour)
		c := w.open(cfg)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		_ = c.Close(ctx)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("close took %s", took)
		}
	})
}

// rotation is a client whose secret_id is in a file.
type rotation struct {
	*world
	c    *Connection
	file string
	tell func()
}

func newRotation(t *testing.T, w *world) *rotation {
	t.Helper()
	r := &rotation{world: w, file: filepath.Join(t.TempDir(), "secret_id")}
	cfg := w.role(anHour)
	r.write(cfg.SecretID.Value.Reveal() + "\n")
	cfg.SecretID = login.Credential{File: r.file}
	cfg.watch = func(ctx context.Context, changed func()) {
		r.tell = changed
		<-ctx.Done()
	}
	r.c = w.open(cfg)
	synctest.Wait()
	return r
}

func (r *rotation) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rotation) rotate(text string) {
	r.t.Helper()
	r.write(text)
	r.tell()
	synctest.Wait()
}

func TestRotatedSecretIDIsTriedAndTakenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		next := w.secretID()
		r.rotate(next)
		if w.count(loginCall) != 2 || r.c.usedSecretID(t) != next {
			t.Errorf("the new secret_id is not in use: %v", w.requests)
		}
		r.tell()
		synctest.Wait()
		if w.count(loginCall) != 2 {
			t.Error("an unchanged file caused a login")
		}
		if r.c.Status().State != StateReady {
			t.Errorf("status: %+v", r.c.Status())
		}
	})
}

func TestBadRotationKeepsTheOldSecretID(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		r.rotate("wrong")
		for range 4 {
			r.tell()
			time.Sleep(time.Minute)
			mustRead(t, r.c)
		}
		if n := w.count(loginCall); n != 2 {
			t.Errorf("%d logins, want 2", n)
		}
		s := r.c.Status()
		if s.State != StateRejected || !s.TokenValid || !errors.Is(s.LastError, vault.ErrLoginRejected) {
			t.Errorf("status: %+v", s)
		}
		if call, ok := errors.AsType[*vault.CallError](s.LastError); !ok || !strings.Contains(call.Remedy, "the next try is at") {
			t.Errorf("the status does not say when the next try is: %v", s.LastError)
		}
		w.do("POST", "auth/token/revoke", `{"token":"`+r.c.login.State().Token.ID.Reveal()+`"}`)
		mustRead(t, r.c) // logs in with the old one
		r.rotate(w.secretID())
		if s := r.c.Status(); s.State != StateReady {
			t.Errorf("status after a good one: %+v", s)
		}
	})
}

func TestRejectedAtStartEndsAtOnceWhenTheFileChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		good := cfg.SecretID.Value.Reveal()
		r := &rotation{world: w, file: filepath.Join(t.TempDir(), "secret_id")}
		r.write("wrong")
		cfg.SecretID = login.Credential{File: r.file}
		cfg.watch = func(ctx context.Context, changed func()) {
			r.tell = changed
			<-ctx.Done()
		}
		r.c = w.open(cfg)
		wantErr(t, r.c.WaitReady(t.Context()), vault.ErrLoginRejected)
		synctest.Wait()
		r.rotate(good)
		mustRead(t, r.c)
		if n := w.count(loginCall); n != 2 {
			t.Errorf("%d logins, want 2", n)
		}
	})
}

func TestRejectedActiveCredentialsServeTheOldTokenAndHealByRotation(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		w.do("POST", "auth/approle/role/app/secret-id/destroy", `{"secret_id":"`+r.c.usedSecretID(t)+`"}`)
		wantErr(t, r.c.RenewLogin(t.Context()), vault.ErrLoginRejected)
		mustRead(t, r.c)
		if s := r.c.Status(); s.State != StateRejected || !s.TokenValid {
			t.Errorf("status: %+v", s)
		}
		time.Sleep(30 * time.Minute)
		mustRead(t, r.c)
		if n := w.count(loginCall); n != 2 {
			t.Errorf("%d logins while the token was good, want 2", n)
		}
		r.rotate(w.secretID())
		mustRead(t, r.c)
		if s := r.c.Status(); s.State != StateReady {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestAFileThatBecomesUnreadableIsSaidInTheStatusAndHealsWithoutAnEvent(t *testing.T) {
	for _, test := range []struct {
		before string // what the file holds when it becomes empty; empty: the secret_id in use
		state  State
		want   error
	}{
		{"", StateReady, vault.ErrLoginPending},
		{"wrong", StateRejected, vault.ErrLoginRejected},
	} {
		inBubble(t, func(t *testing.T, w *world) {
			r := newRotation(t, w)
			if test.before != "" {
				r.rotate(test.before)
			}
			r.rotate("")
			mustRead(t, r.c)
			if s := r.c.Status(); s.State != test.state || !errors.Is(s.LastError, test.want) || !s.TokenValid {
				t.Errorf("after %q and an empty file: %+v", test.before, s)
			}
			r.write(w.secretID()) // and nobody tells
			time.Sleep(credentialsRetry)
			synctest.Wait()
			if s := r.c.Status(); s.State != StateReady || s.LastError != nil {
				t.Errorf("%v after a good secret_id: %+v", credentialsRetry, s)
			}
			mustRead(t, r.c)
		})
	}
}

func TestALoginThatIsDueWhileTheFileIsEmptyUsesTheCredentialsInUse(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		r.rotate("")
		if err := r.c.RenewLogin(t.Context()); err != nil {
			t.Errorf("renew the login: %v", err)
		}
		time.Sleep(3 * time.Hour) // three tokens' lives
		mustRead(t, r.c)
	})
}

func TestAClockThatJumpsAheadCostsOneLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		logins := w.count(loginCall)
		// Frozen as in a suspended machine: no time-out ends a call, and everything that was due is
		// overdue at once.
		thaw := time.Now().Add(12 * time.Hour)
		w.breakWith(func(req *http.Request) (*http.Response, error) {
			if !time.Now().Before(thaw) {
				return w.answer(req, nil)
			}
			time.Sleep(time.Until(thaw))
			return nil, errors.New("connection reset")
		})
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		if !vault.Outage(err) {
			t.Errorf("the frozen read: %v", err)
		}
		time.Sleep(10 * time.Second)
		mustRead(t, c)
		if n := w.count(loginCall) - logins; n != 1 {
			t.Errorf("%d logins after a jump of 12 hours, want 1", n)
		}
	})
}

func TestEmptyFileDuringRotationKeepsTheOldAndWarnsOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		r.rotate("")
		r.tell()
		synctest.Wait()
		mustRead(t, r.c)
		if n := strings.Count(w.logs.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings:\n%s", n, w.logs)
		}
		if s := r.c.Status(); s.State != StateReady || w.count(loginCall) != 1 {
			t.Errorf("status: %+v, requests %v", s, w.requests)
		}
		if err := r.c.RenewLogin(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestRotationDuringAnOutageIsTakenUpAfterwards(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		w.breakWith(refused)
		next := w.secretID()
		r.rotate(next)
		time.Sleep(10 * time.Minute)
		if n := w.total(); n > 200 {
			t.Errorf("%d requests", n)
		}
		w.breakWith(nil)
		time.Sleep(15 * time.Second)
		if r.c.usedSecretID(t) != next {
			t.Error("the new secret_id is not in use")
		}
	})
}

func TestMissingFileIsPendingAndEndsWhenItAppears(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		file := filepath.Join(t.TempDir(), "secret_id")
		secretID := cfg.SecretID.Value.Reveal()
		cfg.SecretID = login.Credential{File: file}
		c := w.open(cfg)
		synctest.Wait()
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrLoginPending)
		if !strings.Contains(remedy(err), "secret_id_file "+file) {
			t.Errorf("remedy: %s", remedy(err))
		}
		if err := os.WriteFile(file, []byte(secretID), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		mustRead(t, c)
	})
}

func TestWrappedSecretIDIsUnwrappedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(`{"token_policies":"app","token_ttl":"1m","token_max_ttl":"2m"}`)
		cfg.SecretID.Value = redact.New(w.wrap("auth/approle/role/app/secret-id"))
		cfg.SecretIDWrapped, cfg.Budget = true, login.NewBudget()
		c := w.open(cfg)
		mustRead(t, c)
		time.Sleep(time.Hour)
		if report := c.Test(t.Context(), nil); !report.OK() {
			t.Errorf("test of the client: %+v", report)
		}
		if report, err := TestConfig(t.Context(), cfg, nil); err != nil || !report.OK() {
			t.Errorf("test of the config: %+v, %v", report, err)
		}
		mustRead(t, c)
		if n := w.count("POST sys/wrapping/unwrap"); n != 1 {
			t.Errorf("unwrapped %d times", n)
		}
	})
}

func TestWrappingTokensThatAreRejected(t *testing.T) {
	for name, test := range map[string]struct {
		token func(w *world) string
		want  string
	}{
		"spent": {func(w *world) string {
			token := w.wrap("auth/approle/role/app/secret-id")
			w.do("POST", "sys/wrapping/unwrap", `{"token":"`+token+`"}`)
			return token
		}, "already used, or has expired"},
		"made for something else": {func(w *world) string { return w.wrap("sys/wrapping/wrap") }, "was not made for a secret_id"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				cfg := w.role(anHour)
				cfg.SecretID.Value, cfg.SecretIDWrapped = redact.New(test.token(w)), true
				c := w.open(cfg)
				err := c.WaitReady(t.Context())
				wantErr(t, err, vault.ErrLoginRejected)
				if !strings.Contains(remedy(err), test.want) {
					t.Errorf("remedy: %s", remedy(err))
				}
				if w.count(loginCall) != 0 {
					t.Error("a login was tried")
				}
			})
		})
	}
}

// wrap returns a wrapping token around what Vault answers to a POST.
func (w *world) wrap(path string) string {
	w.t.Helper()
	token, err := w.wrapped(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func TestOnChangeTellsOfEachState(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		changes := 0
		cfg := w.role(anHour)
		cfg.OnChange = func() { mu.Lock(); changes++; mu.Unlock() }
		c := w.open(cfg)
		synctest.Wait()
		w.breakWith(refused)
		_, _ = c.Read(t.Context(), "secret/data/app", 0)
		synctest.Wait()
		w.breakWith(nil)
		time.Sleep(time.Second)
		mustRead(t, c)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if changes != 3 {
			t.Errorf("%d changes, want ready, degraded, ready", changes)
		}
		for _, state := range []string{"state=ready", "state=degraded"} {
			if !strings.Contains(w.logs.String(), state) {
				t.Errorf("the log does not say %q", state)
			}
		}
	})
}

func TestNoCredentialInAnyLogLine(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		mustRead(t, r.c)
		secrets := []string{"the-value", "wrong-secret-id", r.c.login.State().Token.ID.Reveal(),
			r.c.usedSecretID(t), r.c.usedRoleID(t)}
		r.rotate("wrong-secret-id")
		w.breakWith(status(500, `{"errors":["the-value"]}`, nil))
		_, _ = r.c.Read(t.Context(), "secret/data/app", 0)
		w.breakWith(status(200, `<html>the-value`, nil))
		time.Sleep(time.Minute)
		_, _ = r.c.Read(t.Context(), "secret/data/app", 0)
		w.breakWith(nil)
		time.Sleep(time.Minute)
		_ = r.c.Test(t.Context(), nil)
		_ = r.c.Close(t.Context())
		for i, secret := range secrets {
			if strings.Contains(w.logs.String(), secret) {
				t.Errorf("secret %d is in the log:\n%s", i, w.logs)
			}
		}
	})
}

func TestAPageOfAProxyThatNoVaultSendsIsAnOutageAndCostsNoLogins(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.breakWith(status(404, "default backend - 404", nil))
		c := w.open(w.role(anHour))
		time.Sleep(time.Minute)
		if s := c.Status(); s.State != StateDegraded || !errors.Is(s.LastError, vault.ErrUnreachable) {
			t.Errorf("while the proxy has no Vault behind it: %+v", s)
		}
		w.breakWith(nil)
		time.Sleep(10 * time.Second)
		if s := c.Status(); s.State != StateReady {
			t.Errorf("afterwards: %+v", s)
		}
	})
}

func TestASpentLoginBudgetRecommendsNothingThatIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		for _, wrong := range []string{"wrong", "wrong too", "wrong again"} {
			r.rotate(wrong)
		}
		text := remedy(r.c.Status().LastError)
		if !strings.Contains(text, "no further login until") || strings.Contains(text, "renew-login") {
			t.Errorf("remedy: %s", text)
		}
	})
}

func TestTheStateStaysRejectedWhileNewCredentialsAreTried(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		r.rotate("wrong")
		since := r.c.Status().Since
		time.Sleep(time.Minute)
		w.setLatency(time.Second)
		r.write("wrong too")
		r.tell()
		time.Sleep(500 * time.Millisecond) // its login is under way
		if s := r.c.Status(); s.State != StateRejected {
			t.Errorf("meanwhile: %+v", s)
		}
		time.Sleep(time.Minute)
		if s := r.c.Status(); s.State != StateRejected || !s.Since.Equal(since) {
			t.Errorf("rejected since %v, want %v", s.Since, since)
		}
	})
}

// credentialsRetry is how long unreadable credential files may take to be seen.
const credentialsRetry = 5 * time.Second
