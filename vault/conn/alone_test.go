package conn

import (
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

// fault is what becomes of a request in Vault's place.
type fault = func(*http.Request) (*http.Response, error)

// waysToFail are how a part of Vault that is out of order, or a proxy, answers.
var waysToFail = map[string]fault{
	"429":                   status(429, `{"errors":["request path: rate limit quota exceeded"]}`, nil),
	"500":                   status(500, `{"errors":["internal error"]}`, nil),
	"a page that says 503":  status(503, "no healthy upstream", nil),
	"the connection is cut": func(*http.Request) (*http.Response, error) { return nil, io.EOF },
	"nothing":               hang,
}

func hang(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// failing makes the requests of these paths fail. The others reach Vault.
func (w *world) failing(way fault, paths ...string) {
	w.breakWith(func(req *http.Request) (*http.Response, error) {
		if slices.Contains(paths, strings.TrimPrefix(req.URL.Path, "/v1/")) {
			return way(req)
		}
		return w.answer(req, nil)
	})
}

const (
	loginPath = "auth/approle/login"
	renewPath = "auth/token/renew-self"
)

// readFor reads ten times a second, and fails the test at the first read that does.
func readFor(t *testing.T, c *Connection, span time.Duration) {
	t.Helper()
	for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		mustRead(t, c)
	}
}

// readWithin10s returns once a read has succeeded, which must be within 10 s.
func readWithin10s(t *testing.T, c *Connection) {
	t.Helper()
	began := time.Now()
	for {
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		took := time.Since(began)
		switch {
		case took > 10*time.Second:
			t.Fatalf("after %v: %v", took, err)
		case err == nil:
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestLoginsAndRenewalsThatFailStopNoReadWhileTheTokenLives(t *testing.T) {
	for kind, role := range map[string]string{
		"a minute":               `{"token_policies":"app","token_ttl":"60s"}`,
		"a minute, as a batch":   `{"token_policies":"app","token_ttl":"60s","token_type":"batch"}`,
		"a minute and no longer": `{"token_policies":"app","token_ttl":"60s","token_max_ttl":"60s"}`,
		"ten minutes":            `{"token_policies":"app","token_ttl":"10m"}`,
	} {
		for name, way := range waysToFail {
			t.Run("a token of "+kind+", "+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					c := w.open(w.role(role))
					mustRead(t, c)
					began, ends := time.Now(), c.Status().TokenExpiresAt
					w.failing(way, loginPath, renewPath)
					w.forget()
					readFor(t, c, time.Until(ends)-200*time.Millisecond)
					mustRead(t, c)
					if s := c.Status(); s.State != StateReady || !s.TokenValid {
						t.Errorf("the status is %+v", s)
					}
					most := 20 + int(ends.Sub(began)/3/(3*time.Second)) // in the last third of its life one in 4 s, jitter apart
					if n := w.count(loginCall) + w.count(renewCall); n < 1 || n > most {
						t.Errorf("%d logins and renewals were tried, want %d at most", n, most)
					}
					time.Sleep(time.Minute)
					if s := c.Status(); s.TokenValid {
						t.Error("the token still lives: this test shows nothing")
					}
					w.breakWith(nil)
					readWithin10s(t, c)
				})
			})
		}
	}
}

func TestANewLoginThatFailsStopsNoRead(t *testing.T) {
	for name, way := range waysToFail {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				c := w.open(w.role(anHour))
				mustRead(t, c)
				w.failing(way, loginPath)
				var asked sync.WaitGroup
				asked.Go(func() {
					if err := c.RenewLogin(t.Context()); !vault.Outage(err) {
						t.Errorf("a login that fails: %v", err)
					}
				})
				readFor(t, c, time.Minute)
				asked.Wait()
				synctest.Wait()
				mustRead(t, c)
			})
		})
	}
}

func TestOneFailedRenewalNeverEndsAToken(t *testing.T) {
	for name, way := range waysToFail {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				cfg := w.role(`{"token_policies":"app","token_ttl":"60s"}`)
				c := w.open(cfg)
				mustRead(t, c)
				// From here on every login is rejected. The token may be renewed for as long as
				// anybody likes.
				w.do("POST", "auth/approle/role/app/secret-id/destroy", fmt.Sprintf(`{"secret_id":%q}`, cfg.SecretID.Value.Reveal()))
				w.failing(way, renewPath)
				for w.count(renewCall) == 0 {
					readFor(t, c, time.Second)
				}
				time.Sleep(time.Second)
				w.breakWith(nil)
				readFor(t, c, 30*time.Minute)
				if n := w.count(loginCall); n > 2 {
					t.Errorf("%d logins, want the first and one beside the renewal that failed at most", n)
				}
			})
		})
	}
}

// mountsOfMissing is where the sidecar asks whose path it is.
const mountsOfMissing = "sys/internal/ui/mounts/secret/data/missing"

func TestAQuestionAboutMountsThatFailsCostsNobodyARead(t *testing.T) {
	for name, way := range waysToFail {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				c := w.open(w.role(anHour))
				mustRead(t, c)
				w.failing(way, mountsOfMissing)
				var polling sync.WaitGroup
				polling.Go(func() {
					for range 60 {
						_, err := c.Read(t.Context(), "secret/data/missing", 0)
						if !errors.Is(err, vault.ErrNotFound) {
							t.Errorf("the missing secret: %v", err)
						}
						time.Sleep(time.Second)
					}
				})
				readFor(t, c, time.Minute)
				if s := c.Status(); s.State != StateReady {
					t.Errorf("the status is %+v", s)
				}
				polling.Wait()
			})
		})
	}
}

func TestAMountThatIsUpgradedIsKnownAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		w.do("PUT", "sys/policies/acl/app", `{"policy":"path \"*\" {capabilities=[\"read\"]}"}`)
		w.do("POST", "sys/mounts/one", `{"type":"kv","options":{"version":"1"}}`)
		c := w.open(cfg)
		_, err := c.Read(t.Context(), "one/data/missing", 0)
		wantErr(t, err, vault.ErrNotKVv2)
		w.do("DELETE", "sys/mounts/one", "")
		w.do("POST", "sys/mounts/one", `{"type":"kv","options":{"version":"2"}}`)
		_, err = c.Read(t.Context(), "one/data/missing", 0)
		wantErr(t, err, vault.ErrNotFound)
	})
}

func TestPathsThatFailCostTheOthersOfTheirMountNothing(t *testing.T) {
	for name, way := range waysToFail {
		for _, many := range []int{1, 10} {
			t.Run(fmt.Sprint(many, " paths, ", name), func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					w.setLatency(5 * time.Millisecond)
					c := w.open(w.role(anHour))
					mustRead(t, c)
					var bad []string
					for i := range many {
						bad = append(bad, fmt.Sprint("secret/data/bad", i))
					}
					w.failing(way, bad...)
					var all sync.WaitGroup
					for _, path := range bad {
						all.Go(func() {
							for range 600 {
								if _, err := c.Read(t.Context(), path, 0); !vault.Outage(err) {
									t.Errorf("a bad path: %v", err)
								}
								time.Sleep(100 * time.Millisecond)
							}
						})
					}
					time.Sleep(7 * time.Millisecond) // the good ones begin while the first bad ones are under way
					const reads = 600
					failed := 0
					for range reads {
						if _, err := c.Read(t.Context(), "secret/data/app", 0); err != nil {
							failed++
						}
						time.Sleep(100 * time.Millisecond)
					}
					if failed > 6 {
						t.Errorf("%d of %d reads of the good path failed", failed, reads)
					}
					all.Wait()
				})
			})
		}
	}
}
