package conn

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// Vault counts rejections until 15 minutes have passed since the last one, and locks the role at
// the fifth.
func TestARoleIsNeverLockedByTheSidecarsOwnRetries(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		good := w.role(anHour)
		wrong := good
		wrong.SecretID.Value = redact.New("wrong")
		w.open(wrong)
		for range 6 {
			time.Sleep(time.Hour)
			good.Budget = login.NewBudget()
			if report, _ := TestConfig(t.Context(), good, nil); !report.OK() {
				t.Fatalf("Vault has locked the role: %+v", report.Checks)
			}
		}
	})
}

func TestAWrongRotationNeverKeepsTheOldSecretIDOut(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(`{"token_ttl":"30m","token_max_ttl":"30m","token_policies":"app"}`)
		file := filepath.Join(t.TempDir(), "secret-id")
		writeFile(t, file, cfg.SecretID.Value.Reveal())
		cfg.SecretID = login.Credential{File: file}
		changed := make(chan func(), 1)
		cfg.watch = func(ctx context.Context, tell func()) {
			changed <- tell
			<-ctx.Done()
		}
		c := w.open(cfg)
		wantErr(t, c.WaitReady(t.Context()), nil)
		writeFile(t, file, "wrong")
		(<-changed)()
		synctest.Wait()
		for range 180 {
			time.Sleep(time.Minute)
			mustRead(t, c)
		}
	})
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMistypedTestsNeverKeepAGoodConnectionOut(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		cfg.Budget = login.NewBudget()
		c := w.open(cfg)
		wantErr(t, c.WaitReady(t.Context()), nil)
		mistyped := cfg
		mistyped.SecretID.Value = redact.New("mistyped")
		for range 5 {
			if report, _ := TestConfig(t.Context(), mistyped, nil); report.OK() {
				t.Error("a mistyped secret_id passes")
			}
		}
		w.do("POST", "auth/token/revoke", fmt.Sprintf(`{"token":%q}`, c.login.State().Token.ID.Reveal()))
		mustRead(t, c)
		if n := w.count(loginCall); n > 2+3 {
			t.Errorf("%d logins", n)
		}
	})
}

func TestTheBudgetIsOneHoweverTheTargetIsSpelled(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		cfg.Budget = login.NewBudget()
		cfg.SecretID.Value = redact.New("wrong")
		id := cfg.RoleID.Value.Reveal()
		for _, spell := range []func(*Config){
			func(*Config) {},
			func(c *Config) { c.RoleID.Value = redact.New(" " + id + "\n") },
			func(c *Config) { c.Address = "HTTP://VAULT:08200/" },
			func(c *Config) { c.Address = "http://vault.ns:8200" }, // a role is the same role wherever it answers
			func(c *Config) { c.Address = "http://vault.ns.svc:8200" },
			func(c *Config) { c.Address = "http://127.0.0.1:8200" },
			func(c *Config) { c.Address = "http://localhost:8200" },
			func(c *Config) { c.Namespace = "/root/" },
			func(c *Config) { c.AuthMount = "approle/" },
		} {
			spelled := cfg
			spell(&spelled)
			for range 2 {
				if _, err := TestConfig(t.Context(), spelled, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := w.count(loginCall); n != 3 {
			t.Errorf("%d rejected logins, want %d", n, 3)
		}
	})
}

func TestRejectionsBehindAProxysErrorPageCount(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		cfg.SecretID.Value = redact.New("wrong")
		w.override = map[string]func(http.ResponseWriter, string){"auth/approle/login": func(rw http.ResponseWriter, _ string) {
			rw.Header().Set("Content-Type", "text/html")
			rw.WriteHeader(http.StatusBadRequest)
			_, _ = rw.Write([]byte("<html>Bad Request</html>"))
		}}
		w.open(cfg)
		time.Sleep(10 * time.Minute)
		if n := w.count(loginCall); n != 3 {
			t.Errorf("%d rejected logins, want %d", n, 3)
		}
	})
}

func TestAllCausesTogetherSpendThreeRejectedLogins(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		good := w.role(anHour)
		bad := good
		bad.Budget, bad.Address = login.NewBudget(), "HTTP://Vault:8200/"
		bad.SecretID.Value = redact.New("wrong")
		c := w.open(bad)
		wantErr(t, c.WaitReady(t.Context()), vault.ErrLoginRejected)
		var report Report
		for range 5 {
			wantErr(t, c.RenewLogin(t.Context()), vault.ErrLoginRejected)
			report = c.Test(t.Context(), nil)
			again := bad
			again.Address = "http://vault:8200"
			if _, err := TestConfig(t.Context(), again, nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.count(loginCall); n != 3 {
			t.Errorf("%d logins, want 3", n)
		}
		if check := report.Checks[1]; check.Status != CheckFailed || !strings.Contains(check.Remedy, "until 2000-01-01T00:15:10Z") {
			t.Errorf("login check: %+v", check)
		}
		time.Sleep(15*time.Minute + 10*time.Second)
		good.Budget = bad.Budget
		if report, _ := TestConfig(t.Context(), good, nil); !report.OK() {
			t.Errorf("Vault has locked the role: %+v", report)
		}
	})
}
