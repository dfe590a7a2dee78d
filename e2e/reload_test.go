package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

var (
	loginRejected      = failure{codes.FailedPrecondition, "LOGIN_REJECTED"}
	connectionNotFound = failure{codes.NotFound, "CONNECTION_NOT_FOUND"}
)

func TestAReloadDropsNoRequest(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.RealPrivate(t)
	g := s.newProxy(v)
	first, other := s.defaultLogin(v), s.defaultLogin(v)
	value := s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", value)
	r := s.start("--config", s.config(first.connection("first", g.address)))
	stopLoad := r.underLoad("first", "secret/data/app/key", value)
	defer stopLoad()
	ask := func(connection string) (*secretsidecarv1.ResolveResponse, error) {
		return r.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: connection,
			Path: "secret/data/app/key"})
	}

	s.config(first.connection("first", g.address), other.connection("other", v.Address))
	eventually(t, "the added connection answers",
		func() bool { _, err := ask("other"); return err == nil })

	s.config(first.connection("first", g.address),
		other.connection("other", v.Address, "cache: {ttl: 1m}"))
	eventually(t, "the changed ttl takes effect", func() bool {
		_, _ = r.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Connection: "other"})
		answer, err := ask("other")
		return err == nil &&
			answer.GetExpiresAt().AsTime().Sub(answer.GetFetchedAt().AsTime()) <= time.Minute
	})

	s.write("config.yaml", s.configText(first.connection("first", g.address))+"conections: []\n")
	eventually(t, "the log says why the change is refused",
		func() bool { return r.logs(`"level":"ERROR"`, "conections") })
	if _, err := ask("other"); err != nil {
		t.Errorf("after a refused change: %v", err)
	}

	// A change that the watch of the directory cannot see: through another name of the same file.
	if err := os.Link(s.path("config.yaml"),
		filepath.Join(s.subdirectory("elsewhere"), "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("elsewhere/link"),
		[]byte(s.configText(first.connection("first", g.address))), 0o600); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGHUP)
	eventually(t, "the removed connection is gone",
		func() bool { _, err := ask("other"); return err != nil })
	_, err := ask("other")
	requireFailure(t, s, err, connectionNotFound)

	stopLoad()
	if logins := g.count(loginPath); logins != 1 {
		t.Errorf("the untouched connection logged in %d times, want 1", logins)
	}
}

func TestAChangeThatVaultRejectsLeavesTheSettingsBeforeInUse(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t))
	stopLoad := s.underLoad("prod", "secret/data/app/key", s.secret)
	defer stopLoad()
	wrong := "secret_id: " + s.newSecret()
	s.config(s.login.connection("prod", s.proxy.address, wrong))
	eventually(t, "the log says that the change is not in use", func() bool {
		return s.logs(`"level":"ERROR"`, "the old ones stay in use", `"connection":"prod"`,
			"remedy")
	})
	status := s.status("prod")
	if failure := status.GetLastError(); failure.GetReason() != loginRejected.reason ||
		!strings.Contains(failure.GetMessage(), "not in use yet") {
		t.Errorf("the connection is shown as %v", status)
	}
	for range 5 { // the same file again is no other try
		s.reload()
	}
	requireHealth(t, s.sidecar, "connection/prod", serving)
	s.config(s.login.connection("prod", s.proxy.address))
	s.reload()
	stopLoad()
	if status := s.status("prod"); status.GetState() != secretsidecarv1.ConnectionState_CONNECTION_STATE_READY {
		t.Errorf("after going back the connection is shown as %v", status)
	}
	if logins := s.proxy.count(loginPath); logins != 2 {
		t.Errorf("%d logins, want 2: the first and the wrong one", logins)
	}

	// A new connection logs in on its own; until it has, the rest serves on.
	s.config(s.login.connection("prod", s.proxy.address),
		s.defaultLogin(s.vault).connection("new", s.vault.Address, "secret_id: "+s.newSecret()))
	eventually(t, "the new connection is there", func() bool {
		_, err := s.Resolve(t.Context(),
			&secretsidecarv1.ResolveRequest{Path: "secret/data/app/key", Connection: "new"})
		return codeOf(err) == codes.FailedPrecondition
	})
	requireHealth(t, s.sidecar, "connection/new", notServing)
	requireHealth(t, s.sidecar, "", serving)
}

func TestAReloadLocksCallersOutWhileVaultHangs(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t))
	s.value("secret/data/app/key", s.secret, fromVault)
	defer s.proxy.holdEverything()()

	changed := s.login.connection("prod", s.proxy.address, "timeout: 1m",
		"secret_id: "+s.login.newSecretID())
	s.config(changed)
	s.reload()
	s.value("secret/data/app/key", s.secret, fromCache)
	requireHealth(t, s.sidecar, "connection/prod", serving)

	s.write("config.yaml", s.configText(changed)+"callers: []\n")
	s.reload()
	_, err := s.resolve("secret/data/app/key")
	requireFailure(t, s, err, callerNotAllowed)
	if s.logs("refused, the running one stays") {
		t.Errorf("a reload was refused:\n%s", s.tail())
	}
}

func TestAChangeOfTimeoutAloneCostsNoLogin(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t))
	s.value("secret/data/app/key", s.secret, fromVault)
	for i := range 100 {
		s.config(s.login.connection("prod", s.proxy.address, fmt.Sprintf("timeout: %ds", i+20)))
		s.reload()
	}
	s.value("secret/data/app/key", s.secret, fromCache)
	if logins := s.proxy.count(loginPath); logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}

func TestANewSecretIDInTheConfigurationIsTakenUpOnceVaultIsBack(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]struct {
		away  func(g *proxy) (back func())
		tried string // the path that is asked for when the change has been tried
	}{
		"Vault hangs": {(*proxy).holdEverything, loginPath},
		"Vault hangs until the login's answer is lost": {(*proxy).holdEverything, "sys/health"},
		"Vault is cut off": {func(g *proxy) func() { g.cut(); return g.open }, loginPath},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t, vaulttest.Dev(t))
			s.value("secret/data/app/key", s.secret, fromVault)
			back := outage.away(s.proxy)
			defer back()
			tried := s.proxy.count(outage.tried)
			s.config(s.login.connection("prod", s.proxy.address, "timeout: 3s",
				"secret_id: "+s.login.newSecretID()))
			s.reload()
			eventually(t, "the change is tried", func() bool {
				return s.proxy.count(outage.tried) > tried
			})
			s.value("secret/data/app/key", s.secret, fromCache)
			before := s.proxy.count(loginPath)

			back()
			requireHealed(t, nil, func(context.Context) error {
				if s.proxy.count("auth/token/revoke-self") == 0 {
					return errors.New("the old token is not revoked")
				}
				return nil
			})
			s.login.destroySecretID(s.login.secretID)
			// nothing was cached with the new credentials
			s.value("secret/data/app/key", s.secret, fromVault)
			requireHealth(t, s.sidecar, "connection/prod", serving)
			if logins := s.proxy.count(loginPath) - before; logins > 1 {
				t.Errorf("%d logins once Vault was back, want 1 at most", logins)
			}
		})
	}
}

func TestAReloadChangesWhoMayCall(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t))
	s.value("secret/data/app/key", s.secret, fromVault)

	s.writeConfig("callers: []\n")
	eventually(t, "nobody may call",
		func() bool { _, err := s.resolve("secret/data/app/key"); return err != nil })
	_, err := s.resolve("secret/data/app/key")
	requireFailure(t, s, err, callerNotAllowed)

	s.writeConfig("")
	eventually(t, "everybody may call again",
		func() bool { _, err := s.resolve("secret/data/app/key"); return err == nil })
	s.value("secret/data/app/key", s.secret, fromCache) // reloads have lost nothing

	text := s.configText(s.login.connection("prod", s.proxy.address))
	s.write("config.yaml", strings.Replace(text, s.socket(), s.socket()+"2", 1))
	eventually(t, "the log says that the socket stays",
		func() bool { return s.logs(`"level":"WARN"`, "socket") })
	requireHealth(t, s.sidecar, "", serving)
}
