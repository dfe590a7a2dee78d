package conn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// callLog keeps the calls that a client tells of.
type callLog struct {
	mu    sync.Mutex
	calls []string // guarded by mu
}

func (l *callLog) add(c vault.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, fmt.Sprintf("%s %s %d %s", c.Kind, c.Method, c.Status, c.ErrorType))
}

// take returns the calls so far and forgets them.
func (l *callLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = nil
	return calls
}

func (l *callLog) wants(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := l.take(); !slices.Equal(got, want) {
		t.Errorf("told of %q, want %q", got, want)
	}
}

// observed returns a client that has logged in, and the log of what it calls from then on.
func (w *world) observed(t *testing.T) (*Connection, *callLog) {
	t.Helper()
	log := &callLog{}
	cfg := w.role(`{"token_policies":"app"}`)
	cfg.OnCall = log.add
	c := w.logInWith(t, cfg)
	log.take()
	return c, log
}

func TestEveryCallIsToldByKindAndStatus(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		log := &callLog{}
		cfg := w.role(`{"token_policies":"app","token_ttl":"1h"}`)
		cfg.OnCall = log.add
		c := w.open(cfg)
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		log.wants(t, "login POST 200 ")
		_, _ = c.Read(t.Context(), "secret/data/app", 0)
		log.wants(t, "read GET 200 ")
		_, _ = c.Read(t.Context(), "secret/data/missing", 0)
		log.wants(t, "read GET 404 404", "mount GET 200 ")
		c.Test(t.Context(), &vault.Reference{Path: "secret/data/app", Key: "key"})
		log.wants(t, "test GET 200 ", "test POST 200 ", "test GET 403 403", "test GET 200 ")
		time.Sleep(time.Minute)
		log.wants(t, "test POST 204 ")
		time.Sleep(45 * time.Minute)
		log.wants(t, "renew POST 200 ")
		_ = c.Close(t.Context())
		log.wants(t, "revoke POST 204 ")
	})
}

func TestACallThatFailsIsToldByItsErrorType(t *testing.T) {
	answer := func(status int, body string) func(*http.Request) (*http.Response, error) {
		return func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1}, nil
		}
	}
	tests := map[string]struct {
		fault func(*http.Request) (*http.Response, error)
		want  string
	}{
		"sealed":            {answer(503, `{"errors":["Vault is sealed"]}`), "read GET 503 503"},
		"rate limited":      {answer(429, `{"errors":[]}`), "read GET 429 429"},
		"a redirect":        {answer(307, ""), "read GET 307 redirect"},
		"a page of HTML":    {answer(200, "<html>"), "read GET 200 invalid_answer"},
		"too large":         {answer(200, strings.Repeat("x", vault.MaxAnswerBytes+1)), "read GET 200 too_large"},
		"nothing listens":   {func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }, "read GET 0 unreachable"},
		"no answer in time": {func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }, "read GET 0 timeout"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				c, log := w.observed(t)
				w.breakWith(test.fault)
				_, err := c.Read(t.Context(), "secret/data/app", 0)
				if err == nil {
					t.Error("no error")
				}
				log.wants(t, test.want)
				w.breakWith(nil)
			})
		})
	}
}

func TestAReadGivenUpByTheSidecarIsToldAsCanceled(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c, log := w.observed(t)
		w.breakWith(func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, _ = c.Read(ctx, "secret/data/app", 0)
		log.wants(t, "read GET 0 canceled")
		w.breakWith(nil)
	})
}

func TestTheStatusSaysWhenVaultLastAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(`{"token_policies":"app"}`)
		w.breakWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") })
		c := w.open(cfg)
		synctest.Wait()
		if at := c.Status().LastAnswerAt; !at.IsZero() {
			t.Errorf("Vault has answered at %v", at)
		}
		w.breakWith(nil)
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		answered := time.Now()
		time.Sleep(time.Minute)
		w.breakWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") })
		_, _ = c.Read(t.Context(), "secret/data/app", 0)
		if at := c.Status().LastAnswerAt; !at.Equal(answered) {
			t.Errorf("last answer at %v, want %v", at, answered)
		}
		w.breakWith(nil)
		c.Test(t.Context(), nil)
		if at := c.Status().LastAnswerAt; !at.Equal(answered) {
			t.Errorf("a connection test counts as the last answer, at %v", at)
		}
		time.Sleep(time.Minute)
		_, _ = c.Read(t.Context(), "secret/data/missing", 0)
		found := time.Now()
		if at := c.Status().LastAnswerAt; !at.Equal(found) {
			t.Errorf("not found is an answer; last at %v", at)
		}
		time.Sleep(time.Minute)
		w.breakWith(status(http.StatusForbidden, `{"errors":["permission denied"]}`, nil)) // of the login that follows, too
		_, _ = c.Read(t.Context(), "secret/data/app", 0)
		if at := c.Status().LastAnswerAt; !at.Equal(found) {
			t.Errorf("a refusal counts as an answer, at %v", at)
		}
	})
}

func TestAVaultThatRejectsTheFirstLoginHasNotAnsweredYet(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.config(w.role(`{"token_policies":"app"}`).RoleID.Value.Reveal(), "wrong"))
		_ = c.WaitReady(t.Context())
		if status := c.Status(); status.State != StateRejected || !status.LastAnswerAt.IsZero() {
			t.Errorf("the state is %v, and Vault has answered at %v", status.State, status.LastAnswerAt)
		}
	})
}

func TestARejectedLoginIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		told := make(chan struct{}, 10)
		cfg := w.role(`{"token_policies":"app"}`)
		cfg = w.config(cfg.RoleID.Value.Reveal(), "wrong")
		cfg.OnLoginRejected = func() { told <- struct{}{} }
		c := w.open(cfg)
		_ = c.WaitReady(t.Context())
		synctest.Wait()
		if len(told) != 1 {
			t.Errorf("told of %d rejections, want 1", len(told))
		}
	})
}
