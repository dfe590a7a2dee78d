package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// The faults of the sidecar's own process and machine, under load.

var shuttingDown = failure{codes.Unavailable, "SHUTTING_DOWN"}

func TestTheConfigurationIsReloaded1000TimesUnderLoad(t *testing.T) {
	t.Parallel()
	const reloads = 1000
	r := newLoadSetup(t, loadOptions{})
	r.sidecar = r.start("--config", r.config(), "--log-level", "info")
	r.beginLoad()
	prod := r.login.connection("prod", r.network.address, r.lines...)
	texts := []string{
		r.configText(prod, r.calmConnection),
		r.configText(r.login.connection("prod", r.network.address,
			append(r.lines, "max_waiting: 500")...), r.calmConnection),
		r.configText(prod, r.calmConnection) + "# a comment\n",
	}
	withMore := r.configText(prod, r.calmConnection,
		strings.Replace(r.calmConnection, "name: calm", "name: more", 1))
	for i := range reloads {
		text := texts[i%len(texts)]
		if i%50 == 0 {
			text = withMore // one that logs in, and whose token is revoked after the next reload
		}
		r.write("config.yaml", text)
		r.sidecar.reload()
	}
	r.load.meets("prod VAULT", "prod CACHE", "calm CACHE") // and nothing but values
	if strings.Contains(r.sidecar.log.String(), "refused") {
		t.Errorf("a reload was refused:\n%s", r.sidecar.tail())
	}
}

// reload sends SIGHUP and waits until the configuration has been reloaded.
func (r *sidecar) reload() {
	r.sandbox.t.Helper()
	const done = "configuration reloaded"
	before := strings.Count(r.log.String(), done)
	r.signal(syscall.SIGHUP)
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for strings.Count(r.log.String(), done) == before {
		select {
		case <-tick.C:
		case <-deadline.C:
			r.sandbox.t.Fatalf("no reload within %v of a SIGHUP\n%s", patience, r.tail())
		}
	}
}

func TestTheDiskOfTheLogIsFull(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	r.must(err)
	defer func() { _ = full.Close() }()
	command := exec.Command(binary, "serve", "--log-level", "debug", "--config", r.config())
	command.Env = r.environ()
	command.Stdout, command.Stderr = full, full
	r.sidecar = r.launch(command, &output{})
	r.sidecar.awaitHealth("")
	r.beginLoad()
	r.load.meets("prod VAULT", "prod CACHE")
}

func TestFileDescriptorsAreExhausted(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.sidecar = r.start("--config", r.config())
	// Calm shares the process, and so its descriptors: it is not spared here.
	r.load = newLoad(t, r.sidecar, &target{connection: "prod", history: r.prod})
	r.load.meets("prod VAULT", "prod CACHE")

	r.load.expect(expectation{outage: []failure{unreachable}})
	before := r.limitDescriptors(3) // fewer than are open already
	var greedy []net.Conn
	for range 150 { // the kernel takes them; the sidecar cannot accept them
		conn, err := net.Dial("unix", r.socket())
		r.must(err)
		greedy = append(greedy, conn)
	}
	r.load.during(time.Second)
	r.network.disconnect()
	r.network.connect() // whoever wants to reach Vault now needs a descriptor
	eventually(t, "the status tells of descriptors", func() bool {
		return strings.Contains(r.sidecar.status("prod").GetLastError().GetMessage(),
			"no file descriptor left")
	})
	r.load.during(time.Second)
	for _, conn := range greedy {
		_ = conn.Close()
	}
	r.limitDescriptors(before)
	r.load.heal()
	r.load.meets("prod VAULT")
	r.load.requireSome("prod STALE", "prod VAULT_UNREACHABLE")
}

// limitDescriptors sets how many descriptors the sidecar may have, and returns how many it could
// have before.
func (r *loadSetup) limitDescriptors(n uint64) uint64 {
	r.t.Helper()
	pid := r.sidecar.command.Process.Pid
	var before unix.Rlimit
	r.must(unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before))
	r.must(unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: before.Max}, nil))
	return before.Cur
}

// descriptors counts the open descriptors of the process.
func (r *sidecar) descriptors() int {
	r.sandbox.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.command.Process.Pid))
	r.sandbox.must(err)
	return len(entries)
}

func TestTheSidecarIsKilledAndRestartedUnderLoad(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.begin()
	for range 3 {
		r.load.meets("prod VAULT")
		r.load.expect(expectation{failures: []failure{disconnected, loginPending}})
		r.sidecar.kill()
		r.load.during(200 * time.Millisecond)
		r.sidecar = r.start("--config", r.config()) // takes the socket over
		// by the channel that the workers have had all along
		r.load.heal()
	}
	r.load.meets("prod VAULT", "calm CACHE")
	r.load.requireSome("prod ")
}

func TestTheSidecarIsFrozenForLongerThanTheTokenLives(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{role: shortLife})
	r.sidecar = r.start("--config", r.config())
	// A read that is under way when the process freezes looks like one that Vault has not answered,
	// on any connection.
	r.load = newLoad(t, r.sidecar, &target{connection: "prod", history: r.prod},
		&target{connection: "calm", history: r.calm})
	r.load.meets("prod VAULT")
	r.load.expect(expectation{outage: []failure{unreachable}})
	r.sidecar.signal(syscall.SIGSTOP)
	r.load.during(3 * time.Second) // as a suspended machine or a frozen cgroup does; requests wait
	r.sidecar.signal(syscall.SIGCONT)
	r.load.heal()
	r.load.meets("prod VAULT", "prod CACHE", "calm VAULT")
}

func TestSIGTERMUnderLoadLosesNoAcceptedRequestAndRevokesTheTokens(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.sidecar = r.start("--config", r.config(), "--drain-timeout", patience.String())
	r.beginLoad()
	r.load.meets("prod VAULT")
	r.load.expect(expectation{failures: []failure{shuttingDown, disconnected}})
	r.vault.Mark(t)
	r.network.poison(latencyOf(time.Second))
	const inFlight = 50
	r.requireAnswered(inFlight, func() {
		eventually(t, "the reads are on their way",
			func() bool { return len(r.vault.RequestsTo(t, "secret/data/accepted")) > 0 })
		r.sidecar.terminate()
	})
	r.network.heal()
	r.sidecar.stop()
	r.load.requireSome("prod VAULT", "prod ")
	if tokens := r.vault.RoleTokens(t, r.login.role); len(tokens) > 0 {
		t.Errorf("%d tokens have outlived the sidecar", len(tokens))
	}
	if revocations := arrived(t, r.vault, "update", "auth/token/revoke-self"); revocations != 1 {
		t.Errorf("the audit log shows %d revocations, want 1", revocations)
	}
	if _, err := os.Lstat(r.socket()); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// requireAnswered sends requests, each for a secret that is not cached, calls meanwhile while they
// are under way, and fails the test unless each is answered with its value.
func (r *loadSetup) requireAnswered(count int, meanwhile func()) {
	r.t.Helper()
	values := make([]string, count)
	for i := range values {
		values[i] = r.newSecret()
		r.writeSecret(r.vault, fmt.Sprintf("secret/data/accepted-%d", i), "key", values[i])
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	var answers sync.WaitGroup
	for i, value := range values {
		answers.Go(func() {
			answer, err := r.sidecar.Resolve(ctx,
				&secretsidecarv1.ResolveRequest{Connection: "prod",
					Path: fmt.Sprintf("secret/data/accepted-%d/key", i)})
			if err != nil || answer.GetValue() != value {
				r.t.Errorf("an accepted request was lost: %v, %v", answer, err)
			}
		})
	}
	meanwhile()
	answers.Wait()
}

func TestASecondSidecarOnTheSameSocketIsRefusedAndDisturbsNobody(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.begin()
	for range 3 {
		done := r.run("serve", "--config", r.path("config.yaml"))
		if done.code == 0 || !strings.Contains(done.stderr, r.socket()) {
			t.Errorf("a second sidecar ended with %d and said %q", done.code, done.stderr)
		}
	}
	r.load.meets("prod VAULT", "prod CACHE")
}
