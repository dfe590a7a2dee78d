package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// stage holds everything that runs during a benchmark.
type stage struct {
	directory string
	started   int // how many processes there were
	processes []*process
	channels  []*grpc.ClientConn
	collector *httptest.Server // takes in metrics, and forgets them

	quick, slow vaultReady // Vaults whose reads take 0 and 5 ms
	sidecar     *process   // the product, with the connections quick and slow
	bare        *process   // the echo
	echo        []secretsidecarv1.SecretServiceClient
	clients     []secretsidecarv1.SecretServiceClient // of sidecar
	binary      string

	echoSocket, sidecarSocket string
}

// usualChannels is how many client connections the callers usually share.
const usualChannels = 4

func newStage(p plan) (*stage, error) {
	directory, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	s := &stage{directory: directory, binary: p.binary}
	s.collector = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	return s, nil
}

// setUp starts what most measurements need, once.
func (s *stage) setUp(ctx context.Context) error {
	if s.sidecar != nil {
		return nil
	}
	for ready, latency := range map[*vaultReady]string{&s.quick: "0", &s.slow: "5ms"} {
		if _, err := s.startVault(ready, latency); err != nil {
			return err
		}
	}
	var err error
	if s.bare, s.echo, err = s.startEcho(); err != nil {
		return err
	}
	s.echoSocket = s.lastSocket()
	s.sidecar, s.clients, err = s.startSidecar(ctx, s.quickAndSlow())
	s.sidecarSocket = s.lastSocket()
	return err
}

func (s *stage) quickAndSlow() string {
	return "connections:\n" + connection("quick", s.quick) + connection("slow", s.slow)
}

// connection formats one connection of the configuration file.
func connection(name string, v vaultReady) string {
	return fmt.Sprintf("  - {name: %s, address: %q, role_id: %q, secret_id: %q}\n", name, v.Address,
		v.RoleID, v.SecretID)
}

// socket returns a path that is not in use yet.
func (s *stage) socket() string {
	s.started++
	return s.lastSocket()
}

func (s *stage) keep(p *process, err error) (*process, error) {
	if p != nil {
		s.processes = append(s.processes, p)
	}
	return p, err
}

func (s *stage) startVault(ready *vaultReady, latency string) (*process, error) {
	return s.keep(startSelf(nil, ready, "-vault", latency))
}

func (s *stage) startEcho() (*process, []secretsidecarv1.SecretServiceClient, error) {
	return s.startOwn(nil, "-echo")
}

// startHosted starts the server package in this binary, where its statistics can be read.
func (s *stage) startHosted(ctx context.Context, maxBytes int64,
	args ...string) (*process, []secretsidecarv1.SecretServiceClient, error) {
	p, clients, err := s.startOwn(hostedSettings{Vault: s.quick, MaxBytes: maxBytes}, "-hosted",
		args...)
	if err != nil {
		return nil, nil, err
	}
	return p, clients, answers(ctx, s.lastSocket(), "")
}

// startOwn starts this binary as a server, with statistics. kind is the flag that takes its socket.
func (s *stage) startOwn(input any, kind string,
	args ...string) (*process, []secretsidecarv1.SecretServiceClient, error) {
	socket := s.socket()
	if err := os.Mkdir(filepath.Dir(socket), 0o700); err != nil {
		return nil, nil, err
	}
	args = append([]string{kind, socket, "-stats", socket + ".stats"}, args...)
	p, err := s.keep(startSelf(input, &struct{}{}, args...))
	if err != nil {
		return nil, nil, err
	}
	clients, err := s.dial(socket, usualChannels)
	return p.withStats(socket + ".stats"), clients, err
}

// startSidecar starts the product with this configuration behind its socket, and waits until it is
// ready.
func (s *stage) startSidecar(ctx context.Context, config string,
	env ...string) (*process, []secretsidecarv1.SecretServiceClient, error) {
	p, socket, err := s.launch(config, env...)
	if err != nil {
		return nil, nil, err
	}
	if err := answers(ctx, socket, ""); err != nil {
		return nil, nil, err
	}
	clients, err := s.dial(socket, usualChannels)
	return p, clients, err
}

// launch starts the product without waiting for it.
func (s *stage) launch(config string, env ...string) (p *process, socket string, err error) {
	socket = s.socket()
	file := filepath.Join(s.directory, fmt.Sprintf("config%d.yaml", s.started))
	if err := os.WriteFile(file, []byte("socket: {path: "+socket+"}\n"+config), 0o600); err != nil {
		return nil, "", err
	}
	command := exec.Command(s.binary, "serve", "--log-level", "error", "--config", file)
	command.Env = append([]string{"HOME=" + s.directory}, env...)
	p, err = s.keep(startProcess(command))
	return p, socket, err
}

// answers waits until the health service says SERVING for a name. It asks again without a pause,
// because it measures a start.
func answers(ctx context.Context, socket, service string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		channel, err := grpc.NewClient("unix:"+socket,
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		answer, err := healthpb.NewHealthClient(channel).Check(ctx,
			&healthpb.HealthCheckRequest{Service: service})
		_ = channel.Close()
		if err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return nil
		}
	}
	return errors.New("the sidecar does not become ready")
}

// dial opens this many client connections to the socket.
func (s *stage) dial(socket string, count int) ([]secretsidecarv1.SecretServiceClient, error) {
	const largest = 8 << 20
	clients := make([]secretsidecarv1.SecretServiceClient, count)
	for i := range clients {
		channel, err := grpc.NewClient("unix:"+socket,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest)))
		if err != nil {
			return nil, err
		}
		s.channels = append(s.channels, channel)
		clients[i] = secretsidecarv1.NewSecretServiceClient(channel)
	}
	return clients, nil
}

// metricsVariables make a sidecar export its metrics every second.
func (s *stage) metricsVariables() []string {
	return []string{"OTEL_METRICS_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=" + s.collector.URL,
		"OTEL_METRIC_EXPORT_INTERVAL=1000"}
}

// readsOf returns how many of the benchmark's secrets the Vault was asked for.
func readsOf(ctx context.Context, v vaultReady) (reads int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		strings.TrimSuffix(v.Address, "/")+readsPath, http.NoBody)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	_, err = fmt.Fscan(answer.Body, &reads)
	return reads, err
}

// close ends every process and waits for it.
func (s *stage) close() {
	for _, channel := range s.channels {
		_ = channel.Close()
	}
	for _, p := range s.processes {
		p.stop()
	}
	s.collector.Close()
	_ = os.RemoveAll(s.directory)
}

// lastSocket returns the socket of the process that was started last.
func (s *stage) lastSocket() string {
	return filepath.Join(s.directory, fmt.Sprintf("run%d", s.started), "s.sock")
}
