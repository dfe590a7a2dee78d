package e2e_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

var (
	callerNotAllowed = failure{codes.PermissionDenied, "CALLER_NOT_ALLOWED"}
	sealed           = failure{codes.Unavailable, "VAULT_SEALED"}
	deadlineExceeded = codes.DeadlineExceeded
)

func TestAnOutageIsCheapAndEndsByItself(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.RealPrivate(t), timeoutOf(noOutage),
		"cache: {ttl: 5s, refresh_ahead: 0s}")
	value, cold := s.newSecret(), s.newSecret()
	s.writeSecret(s.vault, "secret/data/app", "key", value)
	s.writeSecret(s.vault, "secret/data/cold", "key", cold)
	s.value("secret/data/app/key", value, fromVault)

	s.proxy.cut()
	s.value("secret/data/app/key", value, fromCache)
	eventually(t, "the copy is past its ttl and served as stale", func() bool {
		answer, err := s.resolve("secret/data/app/key")
		if err != nil || answer.GetValue() != value {
			t.Fatalf("in an outage: %v, %v", answer, err)
		}
		return answer.GetSource() == stale
	})
	requireHealth(t, s.sidecar, "", serving)

	t.Run("max_stale 0s is never answered stale, max_age 0s is", func(t *testing.T) {
		s := s.in(t)
		_, err := s.Resolve(t.Context(),
			&secretsidecarv1.ResolveRequest{Path: "secret/data/app/key",
				MaxStale: durationpb.New(0)})
		requireFailure(t, s, err, unreachable)
		s.answer(&secretsidecarv1.ResolveRequest{Path: "secret/data/app/key", MaxAge: readVaultNow},
			value, stale)
	})

	t.Run("what is not cached fails fast, and few probes go out", func(t *testing.T) {
		s := s.in(t)
		before, began := s.proxy.count(""), time.Now()
		failures := failFast(t, s, 3*time.Second)
		probes := s.proxy.count("") - before
		t.Logf("%d requests failed fast, %d probes", failures, probes)
		// As many in the first 3 s, and then one in each pause of 4 s, which may be drawn down to
		// half.
		requireBetween(t, "probes in an outage", probes, 1,
			7+int(time.Since(began)/(2*time.Second)))
	})

	s.proxy.open()
	requireHealed(t, direct(s.vault, s.proxy.address, "secret/data/cold"),
		fresh(s.sidecar, "", "secret/data/cold/key"), fresh(s.sidecar, "", "secret/data/app/key"))
	if answer, err := s.resolve("secret/data/cold/key"); err != nil || answer.GetValue() != cold {
		t.Errorf("after the outage: %v, %v", answer, err)
	}
	eventually(t, "the stale copy is replaced", func() bool {
		answer, err := s.resolve("secret/data/app/key")
		return err == nil && answer.GetSource() != stale
	})
	list, err := s.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
	if err != nil || list.GetConnections()[0].GetState() != secretsidecarv1.ConnectionState_CONNECTION_STATE_READY {
		t.Errorf("after the outage: %v, %v", list, err)
	}
	if logins := s.proxy.count(loginPath); logins != 1 {
		t.Errorf("%d logins, want 1: the token has survived the outage", logins)
	}
}

// requireAtOnce fails the test when an answer came only after a time-out, or after the longest wait
// in a queue, of a connection with the timeout noOutage.
func requireAtOnce(t *testing.T, asked time.Time) {
	t.Helper()
	if took := time.Since(asked); took >= noOutage/2 {
		t.Errorf("an answer took %v", took)
	}
}

// failFast asks for a secret that is not cached from many sides. Every answer has to come at once.
func failFast(t *testing.T, s *setup, total time.Duration) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), total)
	defer cancel()
	var group sync.WaitGroup
	var failures atomic.Int64
	for range 8 {
		group.Go(func() {
			everyTick(ctx, 10*time.Millisecond, func() {
				asked := time.Now()
				_, err := s.resolve("secret/data/cold/key")
				requireAtOnce(t, asked)
				if err == nil {
					t.Error("a secret that is not cached was resolved")
				} else if failures.Add(1) == 1 {
					requireFailure(t, s, err, unreachable)
				}
			})
		})
	}
	group.Wait()
	return failures.Load()
}

func TestAVaultThatHangsIsGivenUpAfterTheTimeout(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t), "timeout: 2s")
	s.writeSecret(s.vault, "secret/data/app", "key", s.newSecret())
	release := s.proxy.holdEverything()
	defer release()
	_, err := s.resolve("secret/data/app/key")
	requireFailure(t, s, err, unreachable)
	// One request at a time is the probe and waits; the others do not.
	before, began := s.proxy.count("secret/data/"), time.Now()
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			_, err := s.resolve("secret/data/app/key")
			requireFailure(t, s, err, unreachable)
		})
	}
	group.Wait()
	probes := s.proxy.count("secret/data/") - before
	requireBetween(t, "of 20 requests went out, one after the other", probes, 0,
		1+int(time.Since(began)/(2*time.Second)))
	s.proxy.open()
	release()
	requireHealed(t, direct(s.vault, s.proxy.address, "secret/data/app"),
		fresh(s.sidecar, "", "secret/data/app/key"))
}

func TestMoreThanMaxWaitingIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t), "max_waiting: 2", timeoutOf(noOutage))
	s.writeSecret(s.vault, "secret/data/cached", "key", s.secret)
	s.value("secret/data/cached/key", s.secret, fromVault)
	release := s.proxy.hold()
	defer release()
	const asked, allowed = 10, 2
	outcomes := make(chan error, asked)
	for range asked {
		go func() { // ends with its outcome, at the latest after the connection's timeout
			_, err := s.resolve("secret/data/app/key")
			outcomes <- err
		}()
	}
	for range asked - allowed {
		requireFailure(t, s, <-outcomes, failure{codes.ResourceExhausted, "OVERLOADED"})
	}
	s.value("secret/data/cached/key", s.secret, fromCache)
	release()
	for range allowed {
		if err := <-outcomes; err != nil {
			t.Errorf("a request that was allowed to wait: %v", err)
		}
	}
}

func TestTheCallersOwnDeadlineIsItsOwn(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t))
	release := s.proxy.hold()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := s.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: "secret/data/app/key"})
	if got := codeOf(err); got != deadlineExceeded {
		t.Errorf("code %v, want DEADLINE_EXCEEDED", got)
	}
	release()
	eventually(t, "the read that the caller gave up on is of use to the next", func() bool {
		answer, err := s.resolve("secret/data/app/key")
		return err == nil && answer.GetValue() == s.secret
	})
	if reads := s.proxy.count("secret/data/app"); reads != 1 {
		t.Errorf("%d reads, want 1", reads)
	}
}

func TestADenialOrADeletionIsNeverPaperedOver(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSetup(t, v, "cache: {refresh_ahead: 0s}")
		s.writeSecret(v, "secret/data/gone", "key", s.newSecret())
		readNow := func(path string) error {
			_, err := s.Resolve(t.Context(),
				&secretsidecarv1.ResolveRequest{Path: path, MaxAge: readVaultNow})
			return err
		}
		for _, path := range []string{"secret/data/app/key", "secret/data/gone/key"} {
			if err := readNow(path); err != nil {
				t.Fatal(err)
			}
		}
		s.asRoot(v, http.MethodDelete, "secret/data/gone", nil)
		requireFailure(t, s, readNow("secret/data/gone/key"),
			failure{codes.NotFound, "VERSION_DELETED"})
		v.Policy(t, s.login.role, `path "secret/data/other" { capabilities = ["read"] }`)
		requireFailure(t, s, readNow("secret/data/app/key"),
			failure{codes.PermissionDenied, "VAULT_PERMISSION_DENIED"})
		for path, want := range map[string]failure{
			"secret/data/app/key":  {codes.PermissionDenied, "VAULT_PERMISSION_DENIED"},
			"secret/data/gone/key": {codes.NotFound, "VERSION_DELETED"},
		} {
			_, err := s.resolve(path)
			requireFailure(t, s, err, want) // the cached copy is gone too
		}
	})
}

func TestAPolicyThatWasWidenedTakesEffect(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSetupOf(t, v, nil, `path "secret/data/other" { capabilities = ["read"] }`)
		role := s.login.role
		// The role gets a second policy: tokens keep those that they were born with.
		v.Policy(t, role+"-more", readSecrets)
		s.asRoot(v, http.MethodPost, "auth/approle/role/"+role,
			map[string]any{"token_policies": role + "," + role + "-more"})
		s.value("secret/data/app/key", s.secret, fromVault)
	})
}
