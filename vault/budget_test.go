package vault

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
)

// Vault counts rejections until 15 minutes have passed since the last one, and locks the role at the fifth.
func TestARoleIsNeverLockedByTheSidecarsOwnRetries(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		good := w.role(anHour)
		wrong := good
		wrong.SecretID.Value = redact.New("wrong")
		w.open(wrong)
		for range 6 {
			time.Sleep(time.Hour)
			good.Guard = NewGuard()
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
		cfg.SecretID = Credential{File: file}
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
		cfg.Guard = NewGuard()
		c := w.open(cfg)
		wantErr(t, c.WaitReady(t.Context()), nil)
		mistyped := cfg
		mistyped.SecretID.Value = redact.New("mistyped")
		for range 5 {
			if report, _ := TestConfig(t.Context(), mistyped, nil); report.OK() {
				t.Error("a mistyped secret_id passes")
			}
		}
		w.do("POST", "auth/token/revoke", fmt.Sprintf(`{"token":%q}`, c.session.Load().token.id.Reveal()))
		mustRead(t, c)
		if n := w.count(login); n > 2+maxRejectedLogins {
			t.Errorf("%d logins", n)
		}
	})
}

func TestTheBudgetIsOneHoweverTheTargetIsSpelled(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		cfg.Guard = NewGuard()
		cfg.SecretID.Value = redact.New("wrong")
		id := cfg.RoleID.Value.Reveal()
		for _, spell := range []func(*Config){
			func(*Config) {},
			func(c *Config) { c.RoleID.Value = redact.New(" " + id + "\n") },
			func(c *Config) { c.Address = "HTTP://VAULT:08200/" },
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
		if n := w.count(login); n != maxRejectedLogins {
			t.Errorf("%d rejected logins, want %d", n, maxRejectedLogins)
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
		if n := w.count(login); n != maxRejectedLogins {
			t.Errorf("%d rejected logins, want %d", n, maxRejectedLogins)
		}
	})
}

func TestTheGuardForgetsWhatNoLongerCounts(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		cfg.Guard = NewGuard()
		for i := range 50 {
			cfg.RoleID.Value = redact.New(fmt.Sprint(i) + strings.Repeat("x", 1000))
			if _, err := TestConfig(t.Context(), cfg, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(rejectedMemory)
		cfg.Guard.sweep(time.Now())
		if n := len(cfg.Guard.budgets); n != 0 {
			t.Errorf("%d budgets are kept", n)
		}
	})
}
