package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
)

// sidecar is a running `secret-sidecar serve` with a client of it.
type sidecar struct {
	secretsidecarv1.SecretServiceClient

	sandbox *sandbox
	channel *grpc.ClientConn
	command *exec.Cmd
	log     *output
	exited  chan struct{} // closed when the process has ended
	told    bool          // to end, by SIGTERM; a second one would end it at once
	killed  bool          // by kill: its exit code says nothing
}

// in is the same sidecar for a subtest, which is the one to fail then.
func (r *sidecar) in(t *testing.T) *sidecar {
	same := *r
	same.sandbox = r.sandbox.in(t)
	return &same
}

// start runs `serve` and waits until it is ready: every required connection has logged in. The
// test's end stops it.
func (s *sandbox) start(args ...string) *sidecar {
	s.t.Helper()
	running := s.startWith(nil, args...)
	running.awaitHealth("")
	return running
}

// startUnready is start for a sidecar that may never become ready. It waits until the process
// answers.
func (s *sandbox) startUnready(args ...string) *sidecar {
	s.t.Helper()
	running := s.startWith(nil, args...)
	running.awaitHealth("liveness")
	return running
}

// startWith runs `serve` with more variables in its environment, and waits for nothing.
func (s *sandbox) startWith(environment []string, args ...string) *sidecar {
	s.t.Helper()
	return s.serve(exec.Command(binary,
		append([]string{"serve", "--log-level", "debug"}, args...)...), environment)
}

// serve runs a command that becomes a `serve`, with more variables in its environment. It waits for
// nothing.
func (s *sandbox) serve(command *exec.Cmd, environment []string) *sidecar {
	s.t.Helper()
	log, exports := &output{}, &output{}
	command.Env = s.environ(append(exporting(), environment...)...)
	command.Stdout, command.Stderr = exports, log
	s.recordLive("traces and metrics of "+strings.Join(command.Args, " "), exports.String)
	return s.launch(command, log)
}

// exporting makes every sidecar export its traces and metrics to its standard output, where the
// leak checker reads them too. Tests of load measure a sidecar that exports nothing.
func exporting() []string {
	if !withRaceDetector {
		return nil
	}
	return []string{"OTEL_TRACES_EXPORTER=console", "OTEL_METRICS_EXPORTER=console",
		"OTEL_METRIC_EXPORT_INTERVAL=10000"}
}

// launch starts a `serve` whose output the log collects, and waits for nothing.
func (s *sandbox) launch(command *exec.Cmd, log *output) *sidecar {
	s.t.Helper()
	if err := command.Start(); err != nil {
		s.t.Fatal(err)
	}
	running := &sidecar{sandbox: s, command: command, log: log, exited: make(chan struct{})}
	s.recordLive("log of "+strings.Join(command.Args, " "), log.String)
	go func() { // ends with the process, which stop and the test's end see to
		_ = command.Wait()
		close(running.exited)
	}()
	s.t.Cleanup(running.stop)
	running.channel = s.dial()
	running.SecretServiceClient = secretsidecarv1.NewSecretServiceClient(running.channel)
	return running
}

// connectParams are those of a worker that waits for its sidecar. MinConnectTimeout must be set:
// otherwise the backoff is the deadline of each connection, and on a busy machine gRPC closes
// connections that it has just made.
var connectParams = grpc.ConnectParams{
	Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5,
		MaxDelay: 200 * time.Millisecond},
	MinConnectTimeout: patience,
}

// dial opens a channel of its own to the sandbox's socket. The test's end closes it.
func (s *sandbox) dial() *grpc.ClientConn {
	s.t.Helper()
	channel, err := grpc.NewClient("unix://"+s.socket(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(connectParams))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = channel.Close() })
	return channel
}

// awaitHealth waits until the health service says SERVING for a name.
func (r *sidecar) awaitHealth(service string) {
	r.sandbox.t.Helper()
	ctx, cancel := context.WithTimeout(r.sandbox.t.Context(), patience)
	defer cancel()
	go func() { // ends with ctx, at the latest when this function returns
		select {
		case <-r.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	watch, err := healthpb.NewHealthClient(r.channel).Watch(ctx,
		&healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	for err == nil {
		var answer *healthpb.HealthCheckResponse
		answer, err = watch.Recv()
		if answer.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return
		}
	}
	r.sandbox.t.Fatalf("%q did not become SERVING: %v\n%s", service, err, r.tail())
}

// health asks the health service once.
func (r *sidecar) health(service string) healthpb.HealthCheckResponse_ServingStatus {
	r.sandbox.t.Helper()
	answer, err := healthpb.NewHealthClient(r.channel).Check(r.sandbox.t.Context(),
		&healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		r.sandbox.t.Fatalf("health of %q: %v", service, err)
	}
	return answer.GetStatus()
}

// signal sends a signal to the process.
func (r *sidecar) signal(signal syscall.Signal) {
	r.sandbox.t.Helper()
	if err := r.command.Process.Signal(signal); err != nil {
		r.sandbox.t.Fatalf("send %v: %v", signal, err)
	}
}

// terminate tells the sidecar to end.
func (r *sidecar) terminate() {
	r.sandbox.t.Helper()
	if r.told {
		return
	}
	r.told = true
	if err := r.command.Process.Signal(syscall.SIGTERM); err != nil &&
		!errors.Is(err, os.ErrProcessDone) {
		r.sandbox.t.Errorf("send SIGTERM: %v", err)
	}
}

// stop ends the sidecar by SIGTERM and checks that it went in peace. Stopping twice is once.
func (r *sidecar) stop() {
	r.sandbox.t.Helper()
	r.terminate()
	r.awaitExit()
	if code := r.command.ProcessState.ExitCode(); code != 0 && !r.killed {
		r.sandbox.t.Errorf("the sidecar ended with %v, want exit code 0\n%s",
			r.command.ProcessState,
			r.tail())
	}
}

// kill ends the sidecar the way a crash does: it cleans nothing up.
func (r *sidecar) kill() {
	r.sandbox.t.Helper()
	r.killed = true
	r.signal(syscall.SIGKILL)
	r.awaitExit()
}

// awaitExit waits for the end of the process. A process that does not end prints its goroutines and
// fails the test.
func (r *sidecar) awaitExit() {
	r.sandbox.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-r.exited:
		return
	case <-timer.C:
	}
	_ = r.command.Process.Signal(syscall.SIGQUIT)
	select {
	case <-r.exited:
	case <-time.After(patience):
		_ = r.command.Process.Kill()
	}
	r.sandbox.t.Errorf("the sidecar did not end within %v\n%s", patience, r.tail())
}

// resolve asks for one reference; the sidecar has one connection.
func (r *sidecar) resolve(path string) (*secretsidecarv1.ResolveResponse, error) {
	return r.Resolve(r.sandbox.t.Context(), &secretsidecarv1.ResolveRequest{Path: path})
}

// value asks for one reference and fails the test when it is not the expected value from the
// expected source.
func (r *sidecar) value(path, want string,
	source secretsidecarv1.Source) *secretsidecarv1.ResolveResponse {
	r.sandbox.t.Helper()
	return r.answer(&secretsidecarv1.ResolveRequest{Path: path}, want, source)
}

// answer is value for a whole request.
func (r *sidecar) answer(request *secretsidecarv1.ResolveRequest, want string,
	source secretsidecarv1.Source) *secretsidecarv1.ResolveResponse {
	t := r.sandbox.t
	t.Helper()
	answer, err := r.Resolve(t.Context(), request)
	if err != nil {
		t.Fatalf("resolve %v: %v\n%s", request, err, r.tail())
	}
	if answer.GetValue() != want || answer.GetSource() != source {
		t.Fatalf("resolve %v: %q from %v, want %q from %v", request, answer.GetValue(),
			answer.GetSource(), want, source)
	}
	return answer
}

// invalidate drops what a path names and fails the test when it is not the expected number of
// secrets.
func (r *sidecar) invalidate(path string, want uint32) {
	t := r.sandbox.t
	t.Helper()
	answer, err := r.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Path: path})
	if err != nil {
		t.Fatalf("invalidate %q: %v", path, err)
	}
	if answer.GetEntries() != want {
		t.Fatalf("invalidate %q dropped %d secrets, want %d", path, answer.GetEntries(), want)
	}
}

// tail is the end of the log.
func (r *sidecar) tail() string {
	const most = 30
	lines := strings.Split(strings.TrimSpace(r.log.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// logs reports whether a line of the log holds all parts.
func (r *sidecar) logs(parts ...string) bool {
lines:
	for line := range strings.Lines(r.log.String()) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue lines
			}
		}
		return true
	}
	return false
}

func requireHealth(t *testing.T, r *sidecar, service string,
	want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	if got := r.health(service); got != want {
		t.Errorf("health of %q is %v, want %v", service, got, want)
	}
}

// memory reads a size in bytes from the process's status, for example its resident set (VmRSS).
func (r *sidecar) memory(field string) int64 {
	r.sandbox.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.command.Process.Pid))
	r.sandbox.must(err)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if name != field {
			continue
		}
		kilobytes, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		r.sandbox.must(err)
		return kilobytes << 10
	}
	r.sandbox.t.Fatalf("the process's status has no %s", field)
	return 0
}
