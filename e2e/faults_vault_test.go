package e2e_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// The faults of Vault itself, under load. Each test is a row of docs/reliability.md.

var (
	denied       = failure{codes.PermissionDenied, "VAULT_PERMISSION_DENIED"}
	rateLimited  = failure{codes.Unavailable, "VAULT_RATE_LIMITED"}
	loginPending = failure{codes.Unavailable, "LOGIN_PENDING"}
)

func TestVaultDownAtTheStartAndThenUp(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.vault.Kill(t)
	r.sidecar = r.startUnready("--config", r.config())
	requireHealth(t, r.sidecar, "", notServing)
	requireHealth(t, r.sidecar, "liveness", serving)
	for range 20 {
		asked := time.Now()
		_, err := r.sidecar.Resolve(t.Context(),
			&secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/warm-0/key"})
		failed := failureOf(err)
		if failed == nil || *failed != unreachable && *failed != loginPending {
			t.Fatalf("with Vault down from the start: %v", err)
		}
		requireAtOnce(t, asked)
	}
	r.vault.Restart(t)
	requireHealed(t, direct(r.vault, r.network.address, loadPaths[0]),
		fresh(r.sidecar, "prod", "secret/data/warm-0/key"))
	r.sidecar.awaitHealth("") // by itself
	r.beginLoad()
	r.load.meets("prod VAULT", "prod CACHE", "calm VAULT")
}

func TestVaultIsKilledAndRestartedUnderLoad(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.begin()
	r.load.meets("prod VAULT", "prod CACHE")
	r.load.expect(expectation{outage: []failure{unreachable, sealed}})
	r.vault.Kill(t)
	r.load.meets("prod STALE", "prod VAULT_UNREACHABLE")
	r.vault.Restart(t)
	r.load.heal()
	r.load.meets("prod VAULT", "prod CACHE")
}

func TestVaultIsDownForLongerThanTheTokenLives(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{role: shortLife})
	r.begin()
	r.load.meets("prod VAULT", "prod CACHE")
	r.load.expect(expectation{outage: []failure{unreachable, sealed}})
	r.vault.Kill(t)
	eventually(t, "the token has expired",
		func() bool { return r.sidecar.health("connection/prod") == notServing })
	requireHealth(t, r.sidecar, "", serving)
	r.load.meets("prod STALE", "prod VAULT_UNREACHABLE")
	r.vault.Restart(t)
	r.load.heal()
	r.sidecar.awaitHealth("connection/prod")
	r.load.meets("prod VAULT", "prod CACHE")
}

func TestVaultIsSealedAndUnsealedUnderLoad(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.begin()
	r.load.meets("prod VAULT", "prod CACHE")
	r.load.expect(expectation{outage: []failure{sealed, unreachable}})
	r.vault.Seal(t)
	r.load.meets("prod STALE", "prod VAULT_SEALED")
	r.vault.Unseal(t)
	r.load.heal()
	r.load.meets("prod VAULT", "prod CACHE")
}

func TestVaultAnswersWithAStormOf429And5xx(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{withProxy: true})
	r.begin()
	r.load.meets("prod VAULT", "prod CACHE")
	r.load.expect(expectation{outage: []failure{unreachable, rateLimited, sealed}})
	var stormed atomic.Int64
	statuses := []int{429, 500, 502, 503, 504, 429, 599}
	storm := func(w http.ResponseWriter, _ *http.Request) {
		status := statuses[int(stormed.Add(1))%len(statuses)]
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"errors":["the storm says ` + r.newSecret() + `"]}`))
	}
	began := time.Now()
	r.proxy.answerAll(storm)
	r.load.during(4 * time.Second)
	r.proxy.open()
	requests, lasted := stormed.Load(), time.Since(began)
	r.load.heal()
	r.load.meets("prod VAULT")
	r.load.requireSome("prod STALE", "prod VAULT_UNREACHABLE", "prod VAULT_RATE_LIMITED")
	// The breaker lets about 7 probes pass in 4 s; until it opens each of the 5 paths may try as
	// well.
	requireBetween(t, "requests in a storm", int(requests), 1, 17+int(2*lasted/time.Second))
}

func TestVaultIsPutBackToAnOlderSnapshot(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	snapshot, point := r.vault.Snapshot(t), r.prod.point()
	r.begin() // the token is younger than the snapshot: Vault will not know it
	r.load.during(2 * time.Second)
	r.load.expect(expectation{outage: []failure{unreachable, sealed,
		{codes.NotFound, "SECRET_NOT_FOUND"}}})
	r.prod.putBack(point, func() { r.vault.Restore(t, snapshot) })
	r.load.heal()
	r.load.meets("prod VAULT")
}

func TestTokensAreRevokedUnderLoad(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{withProxy: true})
	r.begin()
	for range 3 {
		r.load.meets("prod VAULT")
		eventually(t, "there is a token to revoke",
			func() bool { return r.vault.RevokeRoleTokens(t, r.login.role) > 0 })
	}
	eventually(t, "the last revocation is followed by a login",
		func() bool { return r.proxy.count(loginPath) > 3 })
	r.load.meets("prod VAULT") // and nothing but values
	requireBetween(t, "logins for 3 revocations", r.proxy.count(loginPath), 4, 4)
}

func TestAPolicyTightenedWhileCachedDeniesWithinOneRefresh(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.begin()
	r.load.meets("prod VAULT", "prod CACHE")
	r.load.expect(expectation{failures: []failure{denied}})
	r.vault.Policy(t, r.login.role, `path "secret/data/nothing" { capabilities = ["read"] }`)
	r.load.during(loadTTL + 500*time.Millisecond) // after a ttl no copy is fresh any more
	for _, path := range loadPaths {
		for _, maxStale := range []time.Duration{0, loadStale} {
			_, err := r.sidecar.Resolve(t.Context(),
				&secretsidecarv1.ResolveRequest{Connection: "prod", Path: path + "/key",
					MaxStale: durationpb.New(maxStale)})
			requireFailure(t, r.sandbox, err, denied)
		}
	}
	// Widened again: the next read is allowed, by the same token.
	r.vault.Policy(t, r.login.role, readSecrets)
	r.load.heal()
	r.load.meets("prod VAULT")
	r.load.requireSome("prod VAULT_PERMISSION_DENIED")
}

func TestASecretIsDeletedUndeletedAndDestroyed(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.begin()
	const path = "secret/data/lifecycle"
	value := r.newSecret()
	r.writeSecret(r.vault, path, "key", value)
	ask := func(maxAge *durationpb.Duration) (*secretsidecarv1.ResolveResponse, error) {
		return r.sidecar.Resolve(t.Context(),
			&secretsidecarv1.ResolveRequest{Connection: "prod", Path: path + "/key",
				MaxAge: maxAge})
	}
	change := func(method, api string) {
		t.Helper()
		r.sandbox.asRoot(r.vault, method, api, map[string]any{"versions": []int{1}})
	}
	wantValue := func() {
		t.Helper()
		answer, err := ask(readVaultNow)
		if err != nil || answer.GetValue() != value {
			t.Fatalf("resolve: %v, %v", answer, err)
		}
	}
	wantReason := func(reason string) {
		t.Helper()
		for _, maxAge := range []*durationpb.Duration{readVaultNow, nil} { // the copy is gone too
			_, err := ask(maxAge)
			requireFailure(t, r.sandbox, err, failure{codes.NotFound, reason})
		}
	}
	wantValue()
	change(http.MethodPost, "secret/delete/lifecycle")
	wantReason("VERSION_DELETED")
	change(http.MethodPost, "secret/undelete/lifecycle")
	wantValue()
	change(http.MethodPut, "secret/destroy/lifecycle")
	wantReason("VERSION_DESTROYED")
	change(http.MethodDelete, "secret/metadata/lifecycle")
	wantReason("SECRET_NOT_FOUND")
	r.load.meets("prod VAULT")
}

func TestAWrappedSecretIDThatSomebodyElseHasUsedIsCalledAPossibleAttack(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	wrapping := r.login.wrappedSecretID()
	r.write(r.login.role, wrapping)
	// Somebody else is faster.
	if status := r.vault.Call(t, wrapping, http.MethodPost, "sys/wrapping/unwrap", nil,
		nil).Status; status != http.StatusOK {
		t.Fatalf("unwrap: %d", status)
	}
	r.lines = append(r.lines, "secret_id_wrapped: true")
	r.sidecar = r.startUnready("--config", r.config())
	var said string
	eventually(t, "the login is rejected", func() bool {
		_, err := r.sidecar.Resolve(t.Context(),
			&secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/warm-0/key"})
		failed := failureOf(err)
		if failed != nil {
			said = err.Error()
		}
		return failed != nil && *failed == loginRejected
	})
	for _, word := range []string{"wrapping token", "somebody else"} {
		if !strings.Contains(said, word) {
			t.Errorf("the caller reads %q, which does not say %q", said, word)
		}
	}
	eventually(t, "the log says that somebody else may have used the wrapping token", func() bool {
		return r.sidecar.logs(`"ERROR"`, "somebody else")
	})
}
