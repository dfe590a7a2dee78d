package conn

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

const jwtLogin = "POST auth/jwt/login"

// ownIdentity is a world in which a connection logs in by jwt, with a token in a file that an
// issuer renews.
type ownIdentity struct {
	*world
	issuer *vaulttest.Issuer
	cfg    Config
	file   string
	tell   func()
}

func newOwnIdentity(t *testing.T, w *world) *ownIdentity {
	t.Helper()
	o := &ownIdentity{world: w, issuer: vaulttest.NewIssuer(t), file: filepath.Join(t.TempDir(), "token")}
	w.do("POST", "sys/auth/jwt", `{"type":"jwt"}`)
	w.do("POST", "auth/jwt/config", fmt.Sprintf(`{"jwt_validation_pubkeys":%q}`, o.issuer.PublicKey(t)))
	o.makeRole()
	o.cfg = w.config("", "")
	o.cfg.Role = login.Role{Method: vault.MethodJWT, RoleName: "worker", JWT: login.Credential{File: o.file}}
	o.cfg.watch = func(ctx context.Context, changed func()) {
		o.tell = changed
		<-ctx.Done()
	}
	return o
}

func (o *ownIdentity) makeRole() {
	o.do("POST", "auth/jwt/role/worker", `{"role_type":"jwt","user_claim":"sub","bound_audiences":"vault","token_policies":"app",`+
		`"token_ttl":"1h","token_max_ttl":"10h"}`)
}

// issue writes a token that is good for an hour, unless the claims say something else.
func (o *ownIdentity) issue(changed vaulttest.Claims) {
	o.t.Helper()
	o.write(o.issuer.Token(o.t, changed) + "\n")
}

func (o *ownIdentity) write(text string) {
	o.t.Helper()
	synctest.Wait() // until the watch is on
	if err := os.WriteFile(o.file, []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	if o.tell != nil {
		o.tell()
		synctest.Wait()
	}
}

// stopTelling lets nobody know of a change of the file.
func (o *ownIdentity) stopTelling() {
	synctest.Wait()
	o.tell = nil
}

func TestAHundredRotationsUnderLoadFailNoReadAndCostNoLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := newOwnIdentity(t, w)
		rejections := 0
		o.cfg.OnLoginRejected = func() { rejections++ }
		o.issue(nil)
		c := o.open(o.cfg)
		mustRead(t, c)
		const rotations, between = 100, 48 * time.Minute // as the kubelet does it to a token of an hour
		for range rotations {
			for range 16 {
				time.Sleep(between / 16)
				mustRead(t, c)
			}
			o.issue(nil)
			mustRead(t, c)
		}
		// The logins are those that token_max_ttl makes due: the tokens before were long expired
		// then.
		days := int(rotations * between / (24 * time.Hour))
		if logins := w.count(jwtLogin); logins < days || logins > 5*days || rejections != 0 {
			t.Errorf("%d logins and %d rejections in %d days", logins, rejections, days)
		}
		if status := c.Status(); status.State != StateReady || status.LastError != nil {
			t.Errorf("status %+v", status)
		}
	})
}

func TestAThousandRestartsLeaveNoTokenBehindAndNoLoginIsRejected(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := newOwnIdentity(t, w)
		const restarts = 1000
		for range restarts {
			o.issue(nil)
			o.cfg.OnLoginRejected = func() { t.Error("a login was rejected") }
			c, err := Open(o.cfg)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			mustRead(t, c)
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if logins, revoked := w.count(jwtLogin), w.count("POST auth/token/revoke-self"); logins != restarts || revoked != restarts {
			t.Errorf("%d logins and %d revocations", logins, revoked)
		}
	})
}

func TestATokenFileThatCannotBeUsedIsNotSentAndHealsByItself(t *testing.T) {
	tests := map[string]struct {
		spoil          func(o *ownIdentity)
		headline, hint string
	}{
		"missing": {func(*ownIdentity) {}, "cannot be read", "cannot be read: no such file"},
		"empty":   {func(o *ownIdentity) { o.write("\n") }, "cannot be read", "is empty: write the credential into it"},
		"no token": {func(o *ownIdentity) { o.write("hush") }, "cannot be right, so Vault is not asked",
			"holds no JSON Web Token"},
		"expired": {func(o *ownIdentity) { o.issue(vaulttest.Claims{"exp": time.Now().Add(-6 * time.Minute).Unix()}) },
			"have expired, so Vault is not asked", "holds a token that has expired: let whoever writes the file renew it"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				o := newOwnIdentity(t, w)
				test.spoil(o)
				c := o.open(o.cfg)
				time.Sleep(time.Minute)
				status := c.Status()
				wantErr(t, status.LastError, vault.ErrLoginPending)
				if text := status.LastError.Error(); !strings.Contains(text, test.headline) || !strings.Contains(remedy(status.LastError), "auth.token_file "+o.file+" "+test.hint) {
					t.Errorf("%s: %s", text, remedy(status.LastError))
				}
				if w.count(jwtLogin) != 0 || strings.Contains(w.logs.String(), "hush") {
					t.Errorf("%d logins, log:\n%s", w.count(jwtLogin), w.logs)
				}
				o.stopTelling()
				o.issue(nil)
				time.Sleep(6 * time.Second)
				mustRead(t, c)
			})
		})
	}
}

func TestAReplacementIsDueWhileTheTokensFileIsGoneAndIsMadeOnceItIsBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := newOwnIdentity(t, w)
		o.issue(nil)
		c := o.open(o.cfg)
		synctest.Wait()
		if err := os.Remove(o.file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9*time.Hour + 50*time.Minute) // the end of token_max_ttl is near
		mustRead(t, c)
		if w.count(jwtLogin) != 1 {
			t.Error("a token that is gone was sent again")
		}
		wantErr(t, c.Status().LastError, vault.ErrLoginPending)
		o.stopTelling()
		o.issue(nil)
		time.Sleep(time.Hour)
		mustRead(t, c)
	})
}

func TestARejectedTokenIsTriedAgainSoonAndANewOneAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := newOwnIdentity(t, w)
		w.do("DELETE", "auth/jwt/role/worker", "")
		o.issue(nil)
		c := o.open(o.cfg)
		synctest.Wait()
		wantErr(t, c.Status().LastError, vault.ErrLoginRejected)
		if !strings.Contains(remedy(c.Status().LastError), "Vault has no such role at the mount: check auth.role") {
			t.Errorf("remedy: %s", remedy(c.Status().LastError))
		}
		time.Sleep(11 * time.Second)
		first := w.count(jwtLogin)
		time.Sleep(20 * time.Second)
		second := w.count(jwtLogin)
		time.Sleep(time.Hour)
		if inAnHour := w.count(jwtLogin) - second; first != 2 || second != 3 || inAnHour < 10 || inAnHour > 15 {
			t.Errorf("%d, %d, then %d logins in an hour", first, second, inAnHour)
		}
		o.makeRole()
		o.issue(nil)
		if state := c.Status().State; state != StateReady {
			t.Errorf("state %v after a new token", state)
		}
		mustRead(t, c)
	})
}

func TestATokenThatVaultRejectsLeavesTheLoginInUseAndHealsByRotation(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := newOwnIdentity(t, w)
		o.issue(nil)
		c := o.open(o.cfg)
		synctest.Wait()
		o.issue(vaulttest.Claims{"aud": "other"})
		err := c.RenewLogin(t.Context())
		wantErr(t, err, vault.ErrLoginRejected)
		if !strings.Contains(remedy(err), "audience") {
			t.Errorf("remedy: %s", remedy(err))
		}
		mustRead(t, c)
		if state := c.Status().State; state != StateRejected {
			t.Errorf("state %v", state)
		}
		o.issue(nil)
		mustRead(t, c)
		if status := c.Status(); status.State != StateReady || status.LastError != nil {
			t.Errorf("status %+v", status)
		}
	})
}

func TestManyRejectionsOfAnOwnIdentityRestForAMinuteOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := newOwnIdentity(t, w)
		w.do("DELETE", "auth/jwt/role/worker", "")
		o.issue(nil)
		budget := login.NewBudget()
		o.cfg.Budget = budget
		test := func() Report {
			report, err := TestConfig(t.Context(), o.cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			return report
		}
		for range 20 {
			if report := test(); !strings.Contains(report.Checks[1].Remedy, "auth.role") {
				t.Fatalf("report %+v", report)
			}
		}
		spent := test()
		if w.count(jwtLogin) != 20 || !strings.Contains(spent.Checks[1].Remedy, "to spare Vault there is no further login until") {
			t.Errorf("%d logins, then %+v", w.count(jwtLogin), spent)
		}
		o.makeRole()
		time.Sleep(time.Minute)
		if report := test(); !report.OK() {
			t.Errorf("after a minute: %+v", report)
		}
	})
}

func TestTheLoginsNamespaceIsThatOfItsTokensAndNotOfTheSecrets(t *testing.T) {
	for namespace, want := range map[string]string{"": "team", "admin/": "admin", "root": ""} {
		inBubble(t, func(t *testing.T, w *world) {
			o := newOwnIdentity(t, w)
			o.issue(nil)
			o.cfg.Endpoint.Namespace, o.cfg.AuthNamespace = "team", namespace
			sent := map[string]string{}
			o.cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				sent[strings.TrimPrefix(r.URL.Path, "/v1/")] = r.Header.Get("X-Vault-Namespace")
				return w.RoundTrip(r)
			})
			c := o.open(o.cfg)
			mustRead(t, c)
			time.Sleep(50 * time.Minute)
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			for _, path := range []string{"auth/jwt/login", "auth/token/renew-self", "auth/token/revoke-self"} {
				if got, there := sent[path]; got != want || !there {
					t.Errorf("%q: %s was sent to %q", namespace, path, got)
				}
			}
			if sent["secret/data/app"] != "team" {
				t.Errorf("%q: the read went to %q", namespace, sent["secret/data/app"])
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

func TestAConnectionOfAnOwnIdentityNamesWhatItLacks(t *testing.T) {
	file := login.Credential{File: "/token"}
	for want, role := range map[string]login.Role{
		"auth.role: ":       {Method: vault.MethodKubernetes, JWT: file},
		"auth.token_file: ": {Method: vault.MethodJWT, RoleName: "worker"},
		"client_cert: ":     {Method: vault.MethodCert, RoleName: "worker"},
		"role_id: ":         {},
	} {
		_, err := Open(Config{Settings: Settings{Endpoint: vault.Endpoint{Address: "https://vault:8200"}, Role: role}})
		if err == nil || !strings.HasPrefix(err.Error(), want) || errors.Is(err, vault.ErrLoginPending) {
			t.Errorf("%s%v", want, err)
		}
	}
}
