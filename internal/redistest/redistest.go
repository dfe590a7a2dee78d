// Package redistest gives tests a Redis to work with: miniredis in the test's own process, and a
// real redis-server where one is on PATH.
//
// SECRET_SIDECAR_REQUIRE_REDIS set to 1 turns a missing redis-server from a skip into a failure.
package redistest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// startTimeout is many times what a start takes, on a busy machine too.
const startTimeout = 90 * time.Second

// Server is a Redis that ends with the test.
type Server struct {
	// Address is its host:port. It stays the same when the server starts again.
	Address string

	binary  string
	options []string
	process *exec.Cmd // nil where it does not run
}

// Each runs the test once with miniredis and once with a real Redis, in subtests called "miniredis"
// and "real".
func Each(t *testing.T, test func(t *testing.T, s *Server)) {
	t.Helper()
	t.Run("miniredis", func(t *testing.T) { test(t, Mini(t)) })
	t.Run("real", func(t *testing.T) { test(t, Real(t)) })
}

// Mini starts a miniredis. It can be neither stopped nor frozen.
func Mini(t testing.TB) *Server {
	t.Helper()
	mini := miniredis.NewMiniRedis()
	if err := mini.Start(); err != nil {
		t.Fatalf("start miniredis: %v", err)
	}
	t.Cleanup(mini.Close)
	return &Server{Address: mini.Addr()}
}

// Real starts a redis-server that keeps nothing on disk, with more options if given. It skips the
// test where there is none, unless one is required.
func Real(t testing.TB, options ...string) *Server {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	switch {
	case err == nil:
	case os.Getenv("SECRET_SIDECAR_REQUIRE_REDIS") == "1":
		t.Fatal("a real Redis is required: apt-get install redis-server")
	default:
		t.Skip("no real Redis: apt-get install redis-server to run this test against it")
	}
	address, err := vaulttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: address, binary: binary, options: options}
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}

// Start starts the server again after Stop. It is empty then.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	host, port := splitAddress(s.Address)
	arguments := append([]string{
		"--bind", host, "--port", port, "--save", "", "--appendonly", "no",
		"--dir", t.TempDir(), // its own: a replica leaves a file there, which the next server would load
	}, s.options...)
	s.process = exec.Command(s.binary, arguments...)
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // however the test ends
	if err := s.process.Start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	s.await(t)
}

// await waits until the server takes connections.
func (s *Server) await(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !reachable(ctx, s.Address) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("redis-server did not start")
		}
	}
}

// Stop kills the server. Nothing of what it held is left.
func (s *Server) Stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	_ = s.process.Wait() // it was killed
	s.process = nil
}

// Freeze stops the server from answering, without an end of its connections.
func (s *Server) Freeze(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Server) Thaw(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		t.Fatalf("signal redis-server: %v", err)
	}
}

// URL is where the server is.
func (s *Server) URL() string { return "redis://" + s.Address }

// Client is a client that may do everything, as long as the server asks for no password.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Address, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	return client
}
func splitAddress(address string) (host, port string) {
	host, port, _ = net.SplitHostPort(address) // FreeAddress has made it
	return host, port
}

func reachable(ctx context.Context, address string) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
