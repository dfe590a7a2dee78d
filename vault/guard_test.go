package vault

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

func target(t *testing.T, address, namespace, mount, role string) loginTarget {
	t.Helper()
	u, err := parseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	return newLoginTarget(u, namespace, mount, redact.New(role))
}

func TestLoginTargetsAreEqualHoweverTheyAreSpelled(t *testing.T) {
	want := target(t, "https://vault.example", "team", "approle", "r")
	for _, address := range []string{"https://VAULT.example:443/", "HTTPS://vault.example./", "https://vault.example:443"} {
		if got := target(t, address, "/team/", "/approle/", "r"); got != want {
			t.Errorf("%s is another target: %v", address, got)
		}
	}
	for name, other := range map[string]loginTarget{
		"scheme":    target(t, "http://vault.example:443", "team", "approle", "r"),
		"port":      target(t, "https://vault.example:8200", "team", "approle", "r"),
		"namespace": target(t, "https://vault.example", "other", "approle", "r"),
		"mount":     target(t, "https://vault.example", "team", "approle2", "r"),
		"role":      target(t, "https://vault.example", "team", "approle", "r2"),
		"path":      target(t, "https://vault.example/b", "team", "approle", "r"),
	} {
		if other == want {
			t.Errorf("another %s is the same target", name)
		}
	}
}

func TestBudgetHoldsForConcurrentAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, role := NewGuard(), target(t, "https://v", "", "approle", "r")
		var attempts int
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				done, err := g.reserve(t.Context(), role, false)
				if err != nil {
					if !strings.Contains(remedy(err), "no further login until 2000-01-01T00:15:1") {
						t.Errorf("remedy: %s", remedy(err))
					}
					return
				}
				mu.Lock()
				attempts++
				mu.Unlock()
				time.Sleep(time.Second)
				done(true)
			})
		}
		all.Wait()
		if attempts != 3 {
			t.Errorf("%d rejected logins were let through, want 3", attempts)
		}
		time.Sleep(rejectedMemory)
		done, err := g.reserve(t.Context(), role, false)
		if err != nil {
			t.Fatalf("after 15 minutes: %v", err)
		}
		done(false)
		g.sweep(time.Now())
		if len(g.budgets) != 0 {
			t.Error("a budget with nothing spent is kept")
		}
	})
}

func TestGoodLoginsSpendNothing(t *testing.T) {
	g, role := NewGuard(), target(t, "https://v", "", "approle", "r")
	for range 100 {
		done, err := g.reserve(t.Context(), role, false)
		if err != nil {
			t.Fatal(err)
		}
		done(false)
	}
}

func TestWaitingForTheBudgetEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, role := NewGuard(), target(t, "https://v", "", "approle", "r")
		for range 3 {
			if _, err := g.reserve(t.Context(), role, false); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := g.reserve(ctx, role, false)
		wantErr(t, err, context.DeadlineExceeded)
	})
}

func TestAllCausesTogetherSpendThreeRejectedLogins(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		good := w.role(anHour)
		bad := good
		bad.Guard, bad.Address = NewGuard(), "HTTP://Vault:8200/"
		bad.SecretID.Value = redact.New("wrong")
		c := w.open(bad)
		wantErr(t, c.WaitReady(t.Context()), ErrLoginRejected)
		var report Report
		for range 5 {
			wantErr(t, c.RenewLogin(t.Context()), ErrLoginRejected)
			report = c.Test(t.Context(), nil)
			again := bad
			again.Address = "http://vault:8200"
			if _, err := TestConfig(t.Context(), again, nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.count(login); n != 3 {
			t.Errorf("%d logins, want 3", n)
		}
		if check := report.Checks[1]; check.Status != CheckFailed || !strings.Contains(check.Remedy, "until 2000-01-01T00:15:10Z") {
			t.Errorf("login check: %+v", check)
		}
		time.Sleep(rejectedMemory)
		good.Guard = bad.Guard
		if report, _ := TestConfig(t.Context(), good, nil); !report.OK() {
			t.Errorf("Vault has locked the role: %+v", report)
		}
	})
}
