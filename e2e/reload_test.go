package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

var (
	loginRejected      = failure{codes.FailedPrecondition, "LOGIN_REJECTED"}
	connectionNotFound = failure{codes.NotFound, "CONNECTION_NOT_FOUND"}
)

// underLoad asks for a value from many sides, a part of it past the cache, until stop is called. Any failure
// fails the test.
func (r *sidecar) underLoad(connection, path, want string) (stop func()) {
	t := r.sandbox.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var answers atomic.Int64
	for worker := range 8 {
		client := secretsidecarv1.NewSecretServiceClient(r.sandbox.dial())
		group.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				request := &secretsidecarv1.ResolveRequest{Connection: connection, Path: path}
				if worker == 0 {
					request.MaxAge = readVaultNow
				}
				answer, err := client.Resolve(t.Context(), request)
				if err != nil || answer.GetValue() != want {
					t.Errorf("under load: %v, %v", answer, err)
					return
				}
				answers.Add(1)
			}
		})
	}
	return sync.OnceFunc(func() {
		cancel()
		group.Wait()
		if answers.Load() == 0 {
			t.Error("the load did nothing")
		}
	})
}

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
		return r.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: connection, Path: "secret/data/app/key"})
	}

	s.config(first.connection("first", g.address), other.connection("other", v.Address))
	eventually(t, "the added connection answers", func() bool { _, err := ask("other"); return err == nil })

	s.config(first.connection("first", g.address), other.connection("other", v.Address, "cache: {ttl: 1m}"))
	eventually(t, "the changed ttl takes effect", func() bool {
		_, _ = r.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Connection: "other"})
		answer, err := ask("other")
		return err == nil && answer.GetExpiresAt().AsTime().Sub(answer.GetFetchedAt().AsTime()) <= time.Minute
	})

	s.write("config.yaml", s.configText(first.connection("first", g.address))+"conections: []\n")
	eventually(t, "the log says why the change is refused", func() bool { return r.logs(`"level":"ERROR"`, "conections") })
	if _, err := ask("other"); err != nil {
		t.Errorf("after a refused change: %v", err)
	}

	// A change that the watch of the directory cannot see: through another name of the same file.
	if err := os.Link(s.path("config.yaml"), filepath.Join(s.subdirectory("elsewhere"), "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("elsewhere/link"), []byte(s.configText(first.connection("first", g.address))), 0o600); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGHUP)
	eventually(t, "the removed connection is gone", func() bool { _, err := ask("other"); return err != nil })
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
		return s.logs(`"level":"ERROR"`, "the old ones stay in use", `"connection":"prod"`, "remedy")
	})
	status := s.status("prod")
	if failure := status.GetLastError(); failure.GetReason() != loginRejected.reason || !strings.Contains(failure.GetMessage(), "not in use yet") {
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
	s.config(s.login.connection("prod", s.proxy.address), s.defaultLogin(s.vault).connection("new", s.vault.Address, "secret_id: "+s.newSecret()))
	eventually(t, "the new connection is there", func() bool {
		_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/app/key", Connection: "new"})
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

	changed := s.login.connection("prod", s.proxy.address, "timeout: 1m", "secret_id: "+s.login.newSecretID())
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
			s.config(s.login.connection("prod", s.proxy.address, "timeout: 3s", "secret_id: "+s.login.newSecretID()))
			s.reload()
			eventually(t, "the change is tried", func() bool { return s.proxy.count(outage.tried) > tried })
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
			s.value("secret/data/app/key", s.secret, fromVault) // nothing was cached with the new credentials
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

	s.write("config.yaml", s.configText(s.login.connection("prod", s.vault.Address))+"callers: []\n")
	eventually(t, "nobody may call", func() bool { _, err := s.resolve("secret/data/app/key"); return err != nil })
	_, err := s.resolve("secret/data/app/key")
	requireFailure(t, s, err, callerNotAllowed)

	s.config(s.login.connection("prod", s.vault.Address))
	eventually(t, "everybody may call again", func() bool { _, err := s.resolve("secret/data/app/key"); return err == nil })
	s.value("secret/data/app/key", s.secret, fromCache) // reloads have lost nothing

	text := s.configText(s.login.connection("prod", s.vault.Address))
	s.write("config.yaml", strings.Replace(text, s.socket(), s.socket()+"2", 1))
	eventually(t, "the log says that the socket stays", func() bool { return s.logs(`"level":"WARN"`, "socket") })
	requireHealth(t, s.sidecar, "", serving)
}

// subdirectory makes a directory in the sandbox's.
func (s *sandbox) subdirectory(name string) string {
	s.t.Helper()
	path := s.path(name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func TestARotatedSecretIDFileIsPickedUp(t *testing.T) {
	t.Parallel()
	for name, rotation := range map[string]struct {
		prepare func(s *sandbox, secretID string) (file string)
		rotate  func(s *sandbox, secretID string)
	}{
		"by an atomic rename": {
			func(s *sandbox, secretID string) string { return s.write("sid", secretID) },
			func(s *sandbox, secretID string) { s.write("sid", secretID) },
		},
		"in place": {
			func(s *sandbox, secretID string) string { return s.write("sid", secretID) },
			func(s *sandbox, secretID string) {
				if err := os.WriteFile(s.path("sid"), []byte(secretID), 0o600); err != nil {
					s.t.Fatal(err)
				}
			},
		},
		"by a symbolic link, as Kubernetes does": {
			func(s *sandbox, secretID string) string { return projectVolume(s, "1", secretID) },
			func(s *sandbox, secretID string) { projectVolume(s, "2", secretID) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newUnstartedSetup(t, vaulttest.Dev(t), nil, readSecrets)
			file := rotation.prepare(s.sandbox, s.login.secretID+"\n")
			s.sidecar = s.start("--config", s.config(s.login.connection("prod", s.proxy.address, "secret_id_file: "+file)))
			stopLoad := s.underLoad("prod", "secret/data/app/key", s.secret)
			defer stopLoad()

			rotation.rotate(s.sandbox, s.login.newSecretID()+"\n")
			eventually(t, "the new secret_id is used", func() bool { return s.proxy.count(loginPath) == 2 })
			s.login.destroySecretID(s.login.secretID)
			eventually(t, "the old token is gone", func() bool { return len(s.vault.RoleTokens(t, s.login.role)) == 1 })

			rotation.prepare(s.sandbox, s.newSecret()+"\n")
			eventually(t, "the wrong secret_id is tried", func() bool { return s.proxy.count(loginPath) == 3 })
			eventually(t, "the log says so", func() bool { return s.logs(`"level":"ERROR"`, "secret_id") })
			stopLoad()
			requireHealth(t, s.sidecar, "connection/prod", serving)
			if logins := s.proxy.count(loginPath); logins != 3 {
				t.Errorf("%d logins, want 3", logins)
			}
		})
	}
}

// projectVolume swaps a directory of files the way the kubelet does: sid -> ..data/sid, ..data -> ..2026_N.
func projectVolume(s *sandbox, generation, content string) string {
	s.t.Helper()
	volume := s.subdirectory("volume")
	directory := fmt.Sprintf("..2026_%s_%d", generation, len(content))
	must := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(volume, directory), 0o700))
	must(os.WriteFile(filepath.Join(volume, directory, "sid"), []byte(content), 0o600))
	must(os.Symlink(directory, filepath.Join(volume, "..data_tmp")))
	must(os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
	file := filepath.Join(volume, "sid")
	if _, err := os.Lstat(file); os.IsNotExist(err) {
		must(os.Symlink(filepath.Join("..data", "sid"), file))
	}
	return file
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
		config := s.config(l.connection("prod", g.address, "secret_id_file: "+file, "secret_id_wrapped: true"))
		r := s.start("--config", config)
		eventually(t, "a second login needs no second unwrapping", func() bool { return g.count(loginPath) >= 2 })
		r.value("secret/data/app/key", value, fromVault)
		if unwraps := g.count("sys/wrapping/unwrap"); unwraps != 1 {
			t.Errorf("the wrapping token was used %d times, want 1", unwraps)
		}
		r.stop()

		// The next process finds a spent wrapping token, says so, and does not try it again and again.
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

func TestShutdownRevokesTheTokenAndRemovesTheSocket(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSetup(t, v)
		if tokens := v.RoleTokens(t, s.login.role); len(tokens) != 1 {
			t.Fatalf("the sidecar has %d tokens, want 1", len(tokens))
		}
		s.stop()
		if tokens := v.RoleTokens(t, s.login.role); len(tokens) != 0 {
			t.Errorf("%d tokens are left", len(tokens))
		}
		token := s.proxy.granted()[0].token
		if status, _ := v.Do(t, "POST", "auth/token/lookup", map[string]any{"token": token}); status == 200 {
			t.Error("the token still lives")
		}
		if _, err := os.Lstat(s.socket()); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
}

func TestShutdownFinishesWhatItHasAccepted(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	g := s.newProxy(v)
	r := s.start("--drain-timeout", patience.String(), "--config",
		s.config(s.defaultLogin(v).connection("prod", g.address, timeoutOf(noOutage))))
	value := s.newSecret()
	const requests = 50
	for i := range requests {
		s.writeSecret(v, fmt.Sprintf("secret/data/app%d", i), "key", value)
	}
	release := g.hold()
	defer release()
	var group sync.WaitGroup
	for i := range requests {
		group.Go(func() {
			answer, err := r.resolve(fmt.Sprintf("secret/data/app%d/key", i))
			if err != nil || answer.GetValue() != value {
				t.Errorf("a request that was accepted: %v, %v", answer, err)
			}
		})
	}
	eventually(t, "every request waits for Vault", func() bool { return g.count("secret/data/") == requests })
	r.terminate()
	eventually(t, "the sidecar is stopping", func() bool { return r.logs("stopping") })
	r.signal(syscall.SIGHUP) // a request to reload that comes too late changes nothing
	release()
	group.Wait()
	r.stop()
}

func TestShutdownDoesNotWaitForThoseWhoWatchHealth(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	r := s.start("--drain-timeout", "1h", "--config", s.config(s.defaultLogin(v).connection("prod", v.Address)))
	watch, err := healthpb.NewHealthClient(r.channel).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != serving {
		t.Fatalf("the watch begins with %v, %v", first, err)
	}
	r.terminate()
	if last, err := watch.Recv(); err != nil || last.GetStatus() != notServing {
		t.Errorf("the watch goes on with %v, %v", last, err)
	}
	r.stop()
}

func TestShutdownWithAVaultThatHangsIsBounded(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	g := s.newProxy(v)
	r := s.start("--drain-timeout", "500ms", "--config",
		s.config(s.defaultLogin(v).connection("prod", g.address, "timeout: 1h")))
	release := g.holdEverything()
	defer release()
	answered := make(chan error, 1)
	go func() { // ends when the sidecar does, at the latest
		_, err := r.resolve("secret/data/app/key")
		answered <- err
	}()
	eventually(t, "the request waits for Vault", func() bool { return g.count("secret/data/") == 1 })
	r.stop()
	requireFailure(t, s, <-answered, failure{codes.Unavailable, "SHUTTING_DOWN"})
}
