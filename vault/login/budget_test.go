package login

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

func roleOf(namespace, mount, role string) target {
	return newTarget(namespace, mount, redact.New(role))
}

func TestTargetsAreEqualHoweverTheyAreSpelled(t *testing.T) {
	want := roleOf("team", "approle", "r")
	for _, same := range []target{roleOf("/team/", "/approle/", "r"), roleOf("Team", "AppRole", " R\n")} {
		if same != want {
			t.Error("another spelling is another target")
		}
	}
	for name, other := range map[string]target{
		"namespace": roleOf("other", "approle", "r"),
		"mount":     roleOf("team", "approle2", "r"),
		"role":      roleOf("team", "approle", "r2"),
	} {
		if other == want {
			t.Errorf("another %s is the same target", name)
		}
	}
}

func TestBudgetHoldsForConcurrentAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, role := NewBudget(), roleOf("", "approle", "r")
		var attempts int
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				attempt, err := b.reserve(t.Context(), role, false)
				if err != nil {
					call, _ := errors.AsType[*vault.CallError](err)
					if call == nil || !strings.Contains(call.Remedy, "no further login until 2000-01-01T00:15:1") {
						t.Errorf("got %v", err)
					}
					return
				}
				mu.Lock()
				attempts++
				mu.Unlock()
				time.Sleep(time.Second)
				attempt.done(vault.LoginRejected)
			})
		}
		all.Wait()
		if attempts != 3 {
			t.Errorf("%d rejected logins were let through, want 3", attempts)
		}
		time.Sleep(rejectedMemory)
		attempt, err := b.reserve(t.Context(), role, false)
		if err != nil {
			t.Fatalf("after 15 minutes: %v", err)
		}
		attempt.done(vault.LoginGranted)
		b.sweep(time.Now())
		if len(b.accounts) != 0 {
			t.Error("an account with nothing spent is kept")
		}
	})
}

func TestGoodLoginsSpendNothing(t *testing.T) {
	b, role := NewBudget(), roleOf("", "approle", "r")
	for range 100 {
		attempt, err := b.reserve(t.Context(), role, false)
		if err != nil {
			t.Fatal(err)
		}
		attempt.done(vault.LoginGranted)
	}
}

func TestWaitingForTheBudgetEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, role := NewBudget(), roleOf("", "approle", "r")
		for range 3 {
			if _, err := b.reserve(t.Context(), role, false); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.reserve(ctx, role, false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// spend makes logins end as the fates say until one is refused, and returns how many were let
// through.
func spend(t *testing.T, b *Budget, proven bool, fates ...vault.LoginFate) int {
	t.Helper()
	for i, fate := range fates {
		attempt, err := b.reserve(t.Context(), roleOf("", "approle", "r"), proven)
		if err != nil {
			return i
		}
		attempt.done(fate)
	}
	return len(fates)
}

func TestLostLoginsNeverLockARole(t *testing.T) {
	const lost, rejected, granted = vault.LoginLost, vault.LoginRejected, vault.LoginGranted
	for name, test := range map[string]struct {
		proven bool
		fates  []vault.LoginFate
		want   int
	}{
		"all are lost":                         {false, []vault.LoginFate{lost, lost, lost, lost, lost}, 3},
		"one is lost and then all are refused": {false, []vault.LoginFate{lost, rejected, rejected, rejected}, 3},
		"they take turns":                      {false, []vault.LoginFate{rejected, lost, rejected, lost, rejected}, 3},
		"good ones are lost now and then":      {false, []vault.LoginFate{lost, granted, lost, granted, lost, granted}, 6},
		"the credentials are proven":           {true, []vault.LoginFate{lost, lost, lost, lost, lost, lost}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			if got := spend(t, NewBudget(), test.proven, test.fates...); got != test.want {
				t.Errorf("%d logins, want %d", got, test.want)
			}
		})
	}
}

func TestAfterALostLoginTheNextOneIsInDoubt(t *testing.T) {
	b := NewBudget()
	spend(t, b, true, vault.LoginLost)
	attempt, err := b.reserve(t.Context(), roleOf("", "approle", "r"), true)
	if err != nil || !attempt.inDoubt {
		t.Errorf("%+v, %v", attempt, err)
	}
	attempt.done(vault.LoginGranted)
	if attempt, _ = b.reserve(t.Context(), roleOf("", "approle", "r"), true); attempt.inDoubt {
		t.Error("in doubt after a login that was answered")
	}
}

func TestTheBudgetForgetsWhatNoLongerCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget()
		for i := range 50 {
			for _, fate := range []vault.LoginFate{vault.LoginRejected, vault.LoginLost} {
				attempt, err := b.reserve(t.Context(), roleOf("", "approle", strings.Repeat("x", i+1)), false)
				if err != nil {
					t.Fatal(err)
				}
				attempt.done(fate)
			}
		}
		time.Sleep(rejectedMemory)
		b.sweep(time.Now())
		if n := len(b.accounts); n != 0 {
			t.Errorf("%d accounts are kept", n)
		}
	})
}
