package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/secret-sidecar/secret-sidecar/e2e/containertest"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// worker is the pod's other container. It asks all the time, and prints what it is answered.
type worker struct {
	pod       *pod
	container *containertest.Container
	command   *exec.Cmd
	said      *output
}

// startWorker starts a worker, which needs no sidecar yet.
func (p *pod) startWorker() *worker {
	p.t.Helper()
	program := exec.Command(os.Args[0])
	p.makeReadable(os.Args[0], program)
	c := containertest.New(p.t, containertest.Spec{
		Root: p.path("worker-root"), Args: []string{"/worker", "-test.run=^TestHelperWorksInAPod$"},
		Env: []string{helperEnv + "=1", "WANT=" + p.value, endAtOnce},
		UID: podWorker, GID: podWorker, Groups: []uint32{podGroup},
		Volumes: append(containertest.Programs(),
			containertest.Volume{Source: program.Path, Target: "/worker"},
			containertest.Volume{Source: p.path("run"), Target: podDirectory}),
		Memory: podMemory, CPUs: 1,
	})
	w := &worker{pod: p, container: c, command: c.Command(), said: &output{}}
	w.command.Stdout, w.command.Stderr = w.said, w.said
	p.recordLive("output of the worker", w.said.String)
	p.must(w.command.Start())
	return w
}

// The lines of a worker's output.
const (
	workerAsks     = "worker: asks\n"
	workerAnswered = "worker: answered\n"
	workerFailed   = "worker: failed: "
)

func (w *worker) asked() int    { return strings.Count(w.said.String(), workerAsks) }
func (w *worker) answered() int { return strings.Count(w.said.String(), workerAnswered) }

// awaitAnswers waits until the worker has been answered so many times more.
func (w *worker) awaitAnswers(more int) {
	w.pod.t.Helper()
	before := w.answered()
	eventually(w.pod.t, "the worker is answered", func() bool {
		return w.answered() >= before+more
	})
}

// end tells the worker to end and waits until it has.
func (w *worker) end() {
	w.pod.t.Helper()
	w.pod.must(w.command.Process.Signal(syscall.SIGTERM))
	w.awaitEnd()
}

// kill ends a worker whose sidecar has gone.
func (w *worker) kill() {
	w.pod.t.Helper()
	w.container.Kill()
	_ = w.command.Wait()
}

// awaitEnd waits for a worker that was told to end, and checks that it finished all that it began.
func (w *worker) awaitEnd() {
	w.pod.t.Helper()
	if err := w.command.Wait(); err != nil {
		w.pod.t.Errorf("the worker ended with %v:\n%s", err, w.said)
	}
	if asked, answered := w.asked(), w.answered(); asked != answered+len(w.failures()) {
		w.pod.t.Errorf("the worker asked %d times and was answered %d times", asked, answered)
	}
}

// failures returns what the worker was answered instead of a value.
func (w *worker) failures() []string {
	var failures []string
	for line := range strings.Lines(w.said.String()) {
		if failure, ok := strings.CutPrefix(line, workerFailed); ok {
			failures = append(failures, strings.TrimSpace(failure))
		}
	}
	return failures
}

func (w *worker) requireNoFailure() {
	w.pod.t.Helper()
	if failures := w.failures(); len(failures) > 0 {
		w.pod.t.Errorf("the worker was answered %d times, and %v", w.answered(), failures)
	}
}

// isAny reports whether a failure of a worker's is one of these.
func isAny(said string, expected ...failure) bool {
	return slices.ContainsFunc(expected, func(f failure) bool {
		return strings.HasPrefix(said, fmt.Sprintf("%v %s:", f.code, f.reason))
	})
}

// TestHelperWorksInAPod is no test: it is the worker. It ends after SIGTERM, when its last request
// is answered.
func TestHelperWorksInAPod(t *testing.T) {
	if os.Getenv(helperEnv) == "" {
		t.Skip("runs as a process of its own")
	}
	told, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	channel, err := grpc.NewClient("unix://"+podSocket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(connectParams))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = channel.Close() }()
	client := secretsidecarv1.NewSecretServiceClient(channel)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for told.Err() == nil {
		<-tick.C
		fmt.Print(workerAsks)
		if err := work(client); err != nil {
			fmt.Print(workerFailed, err, "\n")
			continue
		}
		fmt.Print(workerAnswered)
	}
}

// work asks Vault for the secret, and waits for a sidecar if there is none.
func work(client secretsidecarv1.SecretServiceClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request := &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/app/key",
		MaxAge: readVaultNow}
	answer, err := client.Resolve(ctx, request, grpc.WaitForReady(true))
	switch failed := failureOf(err); {
	case failed != nil:
		return fmt.Errorf("%v %s: %q", failed.code, failed.reason, status.Convert(err).Message())
	case answer.GetValue() != os.Getenv("WANT"):
		return fmt.Errorf("a wrong value")
	}
	return nil
}
