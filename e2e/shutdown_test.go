package e2e_test

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

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
		if status, _ := v.Do(t, "POST", "auth/token/lookup",
			map[string]any{"token": token}); status == 200 {
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
	eventually(t, "every request waits for Vault",
		func() bool { return g.count("secret/data/") == requests })
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
	r := s.start("--drain-timeout", "1h", "--config",
		s.config(s.defaultLogin(v).connection("prod", v.Address)))
	watch, err := healthpb.NewHealthClient(r.channel).Watch(t.Context(),
		&healthpb.HealthCheckRequest{})
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
	eventually(t, "the request waits for Vault", func() bool {
		return g.count("secret/data/") == 1
	})
	r.stop()
	requireFailure(t, s, <-answered, failure{codes.Unavailable, "SHUTTING_DOWN"})
}
