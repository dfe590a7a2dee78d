package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// shortLife is a role whose tokens live for 2 seconds and can be renewed until they are 6 seconds
// old.
var shortLife = map[string]any{"token_ttl": "2s", "token_max_ttl": "6s"}

// readSteadily reads Vault anew at every tick until the time is over, and counts the answers. A
// failure or a wrong value fails the test.
func readSteadily(r *sidecar, path, want string, every, total time.Duration) (answers int) {
	t := r.sandbox.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), total)
	defer cancel()
	everyTick(ctx, every, func() {
		r.answer(&secretsidecarv1.ResolveRequest{Path: path, MaxAge: readVaultNow}, want, fromVault)
		answers++
	})
	return answers
}

// requireBetween checks a count of requests.
func requireBetween(t *testing.T, what string, got, least, most int) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%d %s, want %d to %d", got, what, least, most)
	}
}

func TestTokensThatDieYoungAreReplacedInTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name             string
		role             map[string]any
		logins, renewals int // at least, within the time that it is read for
		isNeverRenewed   bool
		isRenewedForEver bool
	}{
		// A token is renewed at about two thirds of its 2 s, until what is left of its 6 s is too
		// short.
		{name: "renewable, 2s at a time, 6s in all", role: shortLife, logins: 3, renewals: 4},
		// One renewal is refused for each token at most.
		{name: "a policy without renew-self", logins: 4, renewals: 1,
			role: map[string]any{"token_ttl": "2s", "token_max_ttl": "6s",
				"token_no_default_policy": true}},
		{name: "batch tokens", logins: 4, isNeverRenewed: true,
			role: map[string]any{"token_ttl": "2s", "token_max_ttl": "6s", "token_type": "batch"}},
		{name: "periodic tokens", role: map[string]any{"token_period": "9s"}, logins: 1, renewals: 1,
			isRenewedForEver: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
				t.Parallel()
				s := newSandbox(t)
				g := s.newProxy(v)
				began := time.Now()
				r := s.start("--config",
					s.config(s.newLogin(v, test.role, readSecrets).connection("prod",
						g.address)))
				value := s.newSecret()
				s.writeSecret(v, "secret/data/app", "key", value)
				const total = 14 * time.Second
				answers := readSteadily(r, "secret/data/app/key", value, 50*time.Millisecond, total)
				logins, renewals := g.count(loginPath), g.count(renewPath)
				t.Logf("%d answers, %d logins, %d renewals", answers, logins, renewals)
				// No storm, for no token lives for less than a second. One that a busy machine was
				// too late to renew is replaced.
				seconds := int(time.Since(began) / time.Second)
				requireBetween(t, "logins", logins, test.logins, 2+seconds*3/2)
				requireBetween(t, "logins and renewals", logins+renewals, test.logins+test.renewals,
					2+3*seconds)
				if test.isNeverRenewed && renewals > 0 {
					t.Errorf("%d renewals of tokens that nobody can renew", renewals)
				}
				if test.isRenewedForEver && logins > 1 {
					t.Errorf("%d logins, want 1", logins)
				}
				// A read whose token has just expired is made again with the next one.
				requireBetween(t, "reads", g.count("secret/data/app"), answers, answers+logins)
			})
		})
	}
}

func TestATokenRevokedByTheOperatorCostsOneLoginAndNoFailure(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSetup(t, v)
		const secrets = 50 // each with a read of its own, which Vault answers with "invalid token"
		value := s.newSecret()
		for i := range secrets {
			s.writeSecret(v, fmt.Sprintf("secret/data/app%d", i), "key", value)
		}
		for round := range 3 {
			if revoked := v.RevokeRoleTokens(t, s.login.role); revoked != 1 {
				t.Fatalf("the sidecar had %d tokens, want 1", revoked)
			}
			var group sync.WaitGroup
			for i := range secrets {
				group.Go(func() {
					path := fmt.Sprintf("secret/data/app%d/key", i)
					answer, err := s.Resolve(t.Context(),
						&secretsidecarv1.ResolveRequest{Path: path, MaxAge: readVaultNow})
					if err != nil || answer.GetValue() != value {
						t.Errorf("resolve: %v, %v", answer, err)
					}
				})
			}
			group.Wait()
			if logins := s.proxy.count(loginPath); logins != round+2 {
				t.Fatalf("%d logins after %d revocations, want %d", logins, round+1, round+2)
			}
		}
	})
}

func TestAWrongSecretIDIsTriedOnce(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSandbox(t)
		g := s.newProxy(v)
		l := s.defaultLogin(v)
		r := s.startUnready("--config",
			s.config(l.connection("prod", g.address, "secret_id: "+s.newSecret())))
		eventually(t, "the login is rejected", func() bool {
			list, err := r.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
			return err == nil &&
				list.GetConnections()[0].GetState() == secretsidecarv1.ConnectionState_CONNECTION_STATE_REJECTED
		})
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for range 30 {
			<-tick.C
			_, err := r.resolve("secret/data/app/key")
			requireFailure(t, s, err, loginRejected)
		}
		requireHealth(t, r, "", notServing)
		requireHealth(t, r, "liveness", serving)
		requireHealth(t, r, "connection/prod", notServing)
		if logins := g.count(loginPath); logins != 1 {
			t.Errorf("%d logins with a wrong secret_id, want 1", logins)
		}

		// Vault locks the role after 5 rejected logins; everything together spends at most 3.
		for range 6 {
			_ = r.renewLogin()
			report, err := r.testNamed("prod")
			if err != nil || report.GetOk() {
				t.Fatalf("a test with a wrong secret_id: %v, %v", report, err)
			}
		}
		requireBetween(t, "logins with a wrong secret_id", g.count(loginPath), 1, 3)
		if status, _ := v.Do(t, "POST", "auth/approle/login",
			map[string]any{"role_id": l.roleID, "secret_id": l.secretID}); status != 200 {
			t.Errorf("the right secret_id is answered %d: the role is locked", status)
		}
	})
}

func TestAWrappedSecretIDIsUnwrappedOnce(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSandbox(t)
		g := s.newProxy(v)
		l := s.newLogin(v, shortLife, readSecrets)
		value := s.newSecret()
		s.writeSecret(v, "secret/data/app", "key", value)
		wrapping := l.wrappedSecretID()
		file := s.write("wrapped", wrapping+"\n")
		config := s.config(l.connection("prod", g.address, "secret_id_file: "+file,
			"secret_id_wrapped: true"))
		r := s.start("--config", config)
		eventually(t, "a second login needs no second unwrapping",
			func() bool { return g.count(loginPath) >= 2 })
		r.value("secret/data/app/key", value, fromVault)
		if unwraps := g.count("sys/wrapping/unwrap"); unwraps != 1 {
			t.Errorf("the wrapping token was used %d times, want 1", unwraps)
		}
		r.stop()

		// The next process finds a spent wrapping token, says so, and does not try it again and
		// again.
		again := s.startUnready("--config", config)
		eventually(t, "the spent wrapping token is rejected", func() bool {
			_, err := again.resolve("secret/data/app/key")
			return strings.Contains(fmt.Sprint(err), "wrapping token")
		})
		_, err := again.resolve("secret/data/app/key")
		requireFailure(t, s, err, loginRejected)
		requireBetween(t, "unwrappings", g.count("sys/wrapping/unwrap"), 1, 2)
	})
}
