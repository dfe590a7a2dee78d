package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

const (
	secrets  = 100 // how many there are
	batch    = 10  // of one BatchResolve
	channels = 4   // that the callers share
)

// value is what every secret holds: 256 bytes.
var value = strings.Repeat("0123456789abcdef", 16)

func secretName(i int) string { return fmt.Sprintf("app-%d", i%secrets) }

func reference(i int) string { return "secret/data/" + secretName(i) + "/key" }

// subject is something to measure: a call, and the process that answers it.
type subject struct {
	name string
	// secrets is how many of them one call resolves.
	secrets int
	process *process
	call    func(ctx context.Context, caller, turn int) error
}

// process is a server that is measured.
type process struct {
	command *exec.Cmd
}

// stage is all that runs during a benchmark.
type stage struct {
	folder    string
	processes []*process
	channels  []*grpc.ClientConn
	subjects  []subject
	started   time.Duration // from the sidecar's start to its first answer
	sidecar   *process
}

func newStage(ctx context.Context, binary string) (*stage, error) {
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	s := &stage{folder: folder}
	if err := s.setUp(ctx, binary); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stage) setUp(ctx context.Context, binary string) error {
	quick, slow := new(vaultReady), new(vaultReady)
	for ready, latency := range map[*vaultReady]string{quick: "0", slow: "5ms"} {
		if _, err := s.startSelf(ready, "-vault", latency); err != nil {
			return err
		}
	}
	echoSocket, socket := filepath.Join(s.folder, "echo.sock"), filepath.Join(s.folder, "run", "s.sock")
	echoing, err := s.startSelf(&struct{}{}, "-echo", echoSocket)
	if err != nil {
		return err
	}
	if err := s.startSidecar(ctx, binary, socket, quick, slow); err != nil {
		return err
	}
	direct, err := directClient(quick)
	if err != nil {
		return err
	}
	bare, err := s.dial(echoSocket)
	if err != nil {
		return err
	}
	clients, err := s.dial(socket)
	if err != nil {
		return err
	}
	s.subjects = []subject{
		{"echo", 1, echoing, resolve(bare, "", nil)},
		{"cached Resolve", 1, s.sidecar, resolve(clients, "quick", nil)},
		{"BatchResolve of 10", batch, s.sidecar, resolveBatch(clients)},
		{"miss, Vault 0 ms", 1, s.sidecar, resolve(clients, "quick", durationpb.New(0))},
		{"miss, Vault 5 ms", 1, s.sidecar, resolve(clients, "slow", durationpb.New(0))},
		{"vault/api, Vault 0 ms", 1, nil, direct},
	}
	return nil
}

// startSelf starts this binary as a server, and waits until it says that it is ready.
func (s *stage) startSelf(ready any, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, append([]string{"serve"}, args...)...)
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := s.start(command)
	if err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("wait for %v: %w", args, err)
	}
	return p, json.Unmarshal(line, ready)
}

func (s *stage) start(command *exec.Cmd) (*process, error) {
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command: command}
	s.processes = append(s.processes, p)
	return p, nil
}

func (s *stage) startSidecar(ctx context.Context, binary, socket string, quick, slow *vaultReady) error {
	connection := func(name string, v *vaultReady) string {
		return fmt.Sprintf("  - {name: %s, address: %q, role_id: %q, secret_id: %q}\n", name, v.Address, v.RoleID, v.SecretID)
	}
	text := "socket: {path: " + socket + "}\nconnections:\n" + connection("quick", quick) + connection("slow", slow)
	config := filepath.Join(s.folder, "config.yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	command := exec.Command(binary, "serve", "--log-level", "error", "--config", config)
	command.Env = []string{"HOME=" + s.folder}
	began := time.Now()
	sidecar, err := s.start(command)
	if err != nil {
		return err
	}
	s.sidecar = sidecar
	if err := answers(ctx, socket, "liveness"); err != nil {
		return err
	}
	s.started = time.Since(began)
	return answers(ctx, socket, "")
}

// answers waits until the health service says SERVING for a name. It asks again at once: it measures a start.
func answers(ctx context.Context, socket, service string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		channel, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		answer, err := healthpb.NewHealthClient(channel).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		_ = channel.Close()
		if err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return nil
		}
	}
	return errors.New("the sidecar does not become ready")
}

func (s *stage) dial(socket string) ([]secretsidecarv1.SecretServiceClient, error) {
	var clients []secretsidecarv1.SecretServiceClient
	for range channels {
		channel, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		s.channels = append(s.channels, channel)
		clients = append(clients, secretsidecarv1.NewSecretServiceClient(channel))
	}
	return clients, nil
}

func resolve(clients []secretsidecarv1.SecretServiceClient, connection string, maxAge *durationpb.Duration) func(context.Context, int, int) error {
	return func(ctx context.Context, caller, turn int) error {
		answer, err := clients[caller%channels].Resolve(ctx, &secretsidecarv1.ResolveRequest{
			Connection: connection, Path: reference(caller + turn), MaxAge: maxAge})
		if err == nil && answer.GetValue() != value {
			err = errors.New("a wrong value")
		}
		return err
	}
}

func resolveBatch(clients []secretsidecarv1.SecretServiceClient) func(context.Context, int, int) error {
	return func(ctx context.Context, caller, turn int) error {
		request := &secretsidecarv1.BatchResolveRequest{}
		for i := range batch {
			request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{Connection: "quick", Path: reference(caller + turn + i)})
		}
		answer, err := clients[caller%channels].BatchResolve(ctx, request)
		for _, result := range answer.GetResults() {
			if result.GetSecret().GetValue() != value {
				return errors.New("a wrong value")
			}
		}
		return err
	}
}

// directClient reads with the library that a worker would use without a sidecar.
func directClient(v *vaultReady) (func(context.Context, int, int) error, error) {
	config := api.DefaultConfig()
	config.Address = v.Address
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.SetToken(v.RootToken)
	return func(ctx context.Context, caller, turn int) error {
		_, err := client.KVv2("secret").Get(ctx, secretName(caller+turn))
		return err
	}, nil
}

// close ends every process and waits for it.
func (s *stage) close() {
	for _, channel := range s.channels {
		_ = channel.Close()
	}
	for _, p := range s.processes {
		_ = p.command.Process.Signal(syscall.SIGTERM)
		_ = p.command.Wait()
	}
	_ = os.RemoveAll(s.folder)
}
