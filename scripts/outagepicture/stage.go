package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
)

// secrets is how many there are in Vault.
const secrets = 200

func secretName(i int) string { return fmt.Sprintf("app-%d", i) }

// vault is a development Vault that can leave its address and come back to it.
type vault struct {
	*devvault.Vault
	address, roleID, secretID string

	mu     sync.Mutex
	server *http.Server // guarded by mu; nil while away
}

func startVault(ctx context.Context) (*vault, error) {
	v := &vault{Vault: devvault.New(devvault.Options{}), address: "127.0.0.1:0"}
	var err error
	if v.roleID, v.secretID, err = v.SetupAppRole("worker",
		`path "secret/*" { capabilities = ["read"] }`); err != nil {
		return nil, err
	}
	for i := range secrets {
		if err := v.WriteSecret(secretName(i), map[string]any{"key": "value"}); err != nil {
			return nil, err
		}
	}
	return v, v.comeBack(ctx)
}

// comeBack serves at the address.
func (v *vault) comeBack(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", v.address)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.address = listener.Addr().String()
	v.server = &http.Server{Handler: v.Vault, ReadHeaderTimeout: time.Minute}
	go func(server *http.Server) { _ = server.Serve(listener) }(v.server) // ends by leave
	return nil
}

// leave breaks every connection; nothing listens at the address afterwards. Leaving twice is once.
func (v *vault) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.server != nil {
		_ = v.server.Close()
		v.server = nil
	}
}

// sidecar is the program at work.
type sidecar struct {
	command         *exec.Cmd
	socket, metrics string
}

func startSidecar(ctx context.Context, binary, directory string, v *vault) (*sidecar, error) {
	s := &sidecar{socket: filepath.Join(directory, "s.sock")}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s.metrics = "http://localhost:" + port + "/metrics"
	config := filepath.Join(directory, "config.yaml")
	text := fmt.Sprintf(`socket: {path: %s}
connections:
  - name: prod
    address: http://%s
    role_id: %s
    secret_id: %s
    cache: {ttl: 4s, refresh_ahead: 1s, max_stale: 1h}
`, s.socket, v.address, v.roleID, v.secretID)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s.command = exec.CommandContext(ctx, binary, "serve", "--config", config, "--log-format",
		"text")
	s.command.Env = append(os.Environ(), "OTEL_METRICS_EXPORTER=prometheus",
		"OTEL_EXPORTER_PROMETHEUS_PORT="+port)
	s.command.Stderr = os.Stderr
	s.command.Cancel = func() error { return s.command.Process.Signal(syscall.SIGTERM) }
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	if err := s.awaitLogin(ctx); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

func freePort(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, errors.Join(err, listener.Close())
}

// awaitLogin watches the sidecar's health until it serves.
func (s *sidecar) awaitLogin(ctx context.Context) error {
	channel, err := dial(s.socket)
	if err != nil {
		return err
	}
	defer func() { _ = channel.Close() }()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	watch, err := healthpb.NewHealthClient(channel).Watch(ctx, &healthpb.HealthCheckRequest{},
		grpc.WaitForReady(true))
	for err == nil {
		var answer *healthpb.HealthCheckResponse
		if answer, err = watch.Recv(); answer.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return nil
		}
	}
	return fmt.Errorf("wait for the sidecar's login: %w", err)
}

func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// end stops the sidecar and waits.
func (s *sidecar) end() {
	_ = s.command.Process.Signal(syscall.SIGTERM)
	_ = s.command.Wait()
}
