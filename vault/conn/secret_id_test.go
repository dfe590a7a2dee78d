package conn

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

const (
	lookupPath   = "POST auth/approle/role/app/secret-id/lookup"
	lookupPolicy = `{"policy":"path \"auth/approle/role/app/secret-id/lookup\" {capabilities=[\"update\"]}"}`
)

// lookingUp returns a Config of a role whose secret_ids live for a day and that looks them up.
func (w *world) lookingUp(params string) Config {
	cfg := w.role(params)
	cfg.LookUpSecretID = true
	return cfg
}

func (w *world) logInWith(t *testing.T, cfg Config) *Connection {
	t.Helper()
	c := w.open(cfg)
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return c
}

func TestTheExpiryOfASecretIDIsLookedUpOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do("PUT", "sys/policies/acl/lookup", lookupPolicy)
		c := w.logInWith(t, w.lookingUp(`{"token_policies":"app,lookup","secret_id_ttl":"24h","token_ttl":"1h","token_max_ttl":"1h"}`))
		expires := time.Now().Add(24 * time.Hour)
		if got := c.Status().SecretIDExpiresAt; !got.Equal(expires) {
			t.Errorf("expires at %v, want %v", got, expires)
		}
		time.Sleep(6 * time.Hour)
		if logins, lookups := w.count("POST auth/approle/login"), w.count(lookupPath); logins < 2 || lookups != 1 {
			t.Errorf("%d logins and %d lookups, want several and 1", logins, lookups)
		}
		if got := c.Status().SecretIDExpiresAt; !got.Equal(expires) {
			t.Errorf("later: expires at %v, want %v", got, expires)
		}
	})
}

func TestARefusedLookupIsNotRepeated(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.logInWith(t, w.lookingUp(`{"token_policies":"app","secret_id_ttl":"24h","token_ttl":"1h","token_max_ttl":"1h"}`))
		time.Sleep(6 * time.Hour)
		if status := c.Status(); !status.SecretIDExpiresAt.IsZero() || status.State != StateReady {
			t.Errorf("status is %+v", status)
		}
		if lookups := w.count(lookupPath); lookups != 1 {
			t.Errorf("%d lookups, want 1", lookups)
		}
	})
}

func TestASecretIDWithoutEndHasNoExpiry(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do("PUT", "sys/policies/acl/lookup", lookupPolicy)
		c := w.logInWith(t, w.lookingUp(`{"token_policies":"app,lookup"}`))
		if got := c.Status().SecretIDExpiresAt; !got.IsZero() || w.count(lookupPath) != 1 {
			t.Errorf("expires at %v after %d lookups", got, w.count(lookupPath))
		}
	})
}

func TestNoSecretIDIsLookedUpUnlessAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.lookingUp(`{"token_policies":"app","secret_id_ttl":"24h"}`)
		cfg.LookUpSecretID = false
		w.logInWith(t, cfg)
		if w.count(lookupPath) != 0 {
			t.Error("it was looked up")
		}
	})
}

func TestALookupThatAnOutageSwallowedIsMadeAfterTheNextLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do("PUT", "sys/policies/acl/lookup", lookupPolicy)
		w.breakWith(func(r *http.Request) (*http.Response, error) {
			if "POST "+r.URL.Path[len("/v1/"):] == lookupPath {
				return nil, errors.New("refused")
			}
			return w.answer(r, nil)
		})
		c := w.logInWith(t, w.lookingUp(`{"token_policies":"app,lookup","secret_id_ttl":"24h","token_ttl":"1h","token_max_ttl":"1h"}`))
		w.breakWith(nil)
		if got := c.Status().SecretIDExpiresAt; !got.IsZero() {
			t.Errorf("expires at %v before anybody has said so", got)
		}
		time.Sleep(2 * time.Hour)
		if got := c.Status().SecretIDExpiresAt; got.IsZero() || w.count(lookupPath) != 2 {
			t.Errorf("expires at %v after %d lookups", got, w.count(lookupPath))
		}
	})
}

func TestALookupThatFailsIsNoOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.breakWith(func(r *http.Request) (*http.Response, error) {
			if "POST "+r.URL.Path[len("/v1/"):] != lookupPath {
				return w.answer(r, nil)
			}
			return w.answer(r, func(out http.ResponseWriter, _ string) {
				out.WriteHeader(http.StatusForbidden)
				_, _ = out.Write([]byte("<html>a gateway refuses</html>"))
			})
		})
		c := w.logInWith(t, w.lookingUp(`{"token_policies":"app","secret_id_ttl":"24h"}`))
		if status := c.Status(); status.State != StateReady {
			t.Errorf("the state is %v: %v", status.State, status.LastError)
		}
		if _, err := c.Read(t.Context(), "secret/data/app", 0); err != nil {
			t.Errorf("read: %v", err)
		}
	})
}

func TestALookupUnderWayDoesNotHoldUpClose(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.breakWith(func(r *http.Request) (*http.Response, error) {
			if "POST "+r.URL.Path[len("/v1/"):] == lookupPath {
				<-r.Context().Done()
				return nil, errors.New("gone")
			}
			return w.answer(r, nil)
		})
		c := w.logInWith(t, w.lookingUp(`{"token_policies":"app","secret_id_ttl":"24h"}`))
		began := time.Now()
		if err := c.Close(t.Context()); err != nil || time.Since(began) > 0 {
			t.Errorf("Close took %v: %v", time.Since(began), err)
		}
	})
}
