package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/secret-sidecar/secret-sidecar/e2e/containertest"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// The conditions of a pod, on this machine: the sidecar and a worker in containers of their own, as different users, with
// a group (the pod's fsGroup) and a directory in memory in common.

const (
	podSidecar = 65532
	podWorker  = 41005
	podGroup   = 42005
	podMemory  = 256 << 20
	// podDirectory is where both containers see the directory that they share.
	podDirectory = "/run/secret-sidecar"
	podSocket    = podDirectory + "/s.sock"
)

// pod is a pod's volumes, and the Vault of its sidecar.
type pod struct {
	*sandbox
	proxy          *proxy
	login          *login
	value          string // of secret/data/app/key
	config, secret *volume
}

func newPod(t *testing.T) *pod {
	t.Helper()
	containertest.Require(t)
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	p := &pod{sandbox: s, proxy: s.newProxy(v), login: s.defaultLogin(v), value: s.newSecret()}
	s.writeSecret(v, "secret/data/app", "key", p.value)
	s.must(os.Chmod(s.dir, 0o711)) // #nosec G302 -- the containers' users pass through it
	p.config, p.secret = s.newVolume("config", 0o644), s.newVolume("secret", 0o440)
	p.secret.swap(map[string]string{"secret-id": p.login.secretID})
	p.config.swap(map[string]string{"config.yaml": p.configText("timeout: 20s")})
	p.shareMemory()
	return p
}

// configText is the configuration with more lines for its connection.
func (p *pod) configText(lines ...string) string {
	connection := p.login.connection("prod", p.proxy.address, append(lines, "secret_id_file: /etc/vault/secret-id")...)
	return strings.Replace(p.sandbox.configText(connection), p.socket(), podSocket+`, mode: "0660"`, 1)
}

// shareMemory mounts the directory of the socket as the kubelet mounts an emptyDir in memory for a pod with an fsGroup: the
// group may write, and what is made in it is the group's.
func (p *pod) shareMemory() {
	p.t.Helper()
	directory := p.subdirectory("run")
	p.must(unix.Mount("tmpfs", directory, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m"))
	p.t.Cleanup(func() { _ = unix.Unmount(directory, unix.MNT_DETACH) })
	p.must(os.Chown(directory, 0, podGroup))
	p.must(os.Chmod(directory, fs.ModeSetgid|0o777))
}

// volume is a ConfigMap or Secret as the kubelet lays it out: NAME leads to ..data/NAME, and ..data to the files' directory.
type volume struct {
	sandbox *sandbox
	dir     string
	mode    fs.FileMode
	at      int
}

func (s *sandbox) newVolume(name string, mode fs.FileMode) *volume {
	s.t.Helper()
	v := &volume{sandbox: s, dir: s.subdirectory(name), mode: mode}
	v.open(v.dir)
	return v
}

// open lets the pod's group into a directory.
func (v *volume) open(directory string) {
	v.sandbox.t.Helper()
	v.sandbox.must(os.Chown(directory, 0, podGroup))
	v.sandbox.must(os.Chmod(directory, fs.ModeSetgid|0o755))
}

// swap puts other files in the place of all, in one step.
func (v *volume) swap(files map[string]string) {
	s := v.sandbox
	s.t.Helper()
	v.at++
	version := fmt.Sprintf("..%d", v.at)
	directory := filepath.Join(v.dir, version)
	s.must(os.Mkdir(directory, 0o700))
	v.open(directory)
	for name, text := range files {
		path := filepath.Join(directory, name)
		s.must(os.WriteFile(path, []byte(text), v.mode))
		s.must(os.Chown(path, 0, podGroup))
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(v.dir, name)); !os.IsExist(err) {
			s.must(err)
		}
	}
	s.must(os.Symlink(version, filepath.Join(v.dir, "..data_tmp")))
	s.must(os.Rename(filepath.Join(v.dir, "..data_tmp"), filepath.Join(v.dir, "..data")))
	if v.at > 1 {
		s.must(os.RemoveAll(filepath.Join(v.dir, fmt.Sprintf("..%d", v.at-1)))) // as the kubelet does
	}
}

// containedSidecar is the sidecar in its container.
type containedSidecar struct {
	*sidecar
	container *containertest.Container
}

// startSidecar starts the sidecar's container, and waits for nothing.
func (p *pod) startSidecar() *containedSidecar {
	p.t.Helper()
	c := containertest.New(p.t, containertest.Spec{
		Root: p.path("sidecar-root"), Args: []string{"/secret-sidecar", "serve", "--log-level", "debug"},
		Env: append(exporting(), "SECRET_SIDECAR_SOCKET="+podSocket),
		UID: podSidecar, GID: podSidecar, Groups: []uint32{podGroup},
		Volumes: append(containertest.Programs(), // the binary under test is not static: it has the race detector
			containertest.Volume{Source: binary, Target: "/secret-sidecar"},
			containertest.Volume{Source: p.config.dir, Target: "/etc/secret-sidecar"},
			containertest.Volume{Source: p.secret.dir, Target: "/etc/vault"},
			containertest.Volume{Source: p.path("run"), Target: podDirectory, Writable: true}),
		Memory: podMemory, CPUs: 1,
	})
	command, log, exports := c.Command(), &output{}, &output{}
	command.Stdout, command.Stderr = exports, log
	p.recordLive("traces and metrics of the pod's sidecar", exports.String)
	return &containedSidecar{sidecar: p.launch(command, log), container: c}
}

// awaitStarted waits as the kubelet does, by the manifest's startup probe, which runs in the container. It tells that the
// socket answers; the sidecar may not have logged in yet.
func (r *containedSidecar) awaitStarted() {
	r.sandbox.t.Helper()
	r.await("startupProbe")
}

// await waits until a probe of the manifest's succeeds.
func (r *containedSidecar) await(probe string) {
	r.sandbox.t.Helper()
	eventually(r.sandbox.t, probe+" succeeds", func() bool { return r.probe(probe) == nil })
}

// probe runs a probe of the manifest's in the container.
func (r *containedSidecar) probe(name string) error {
	r.sandbox.t.Helper()
	return r.container.Exec(probeCommand(r.sandbox.t, name)...).Run()
}

// probeCommand is the command of a probe in the manifest of the pod.
func probeCommand(t *testing.T, probe string) []string {
	t.Helper()
	manifest, err := os.ReadFile("../deploy/kubernetes/component-with-own-fs-group/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path, err := yaml.PathString("$.spec.template.spec.initContainers[0]." + probe + ".exec.command")
	if err != nil {
		t.Fatal(err)
	}
	var command []string
	if err := path.Read(bytes.NewReader(manifest), &command); err != nil {
		t.Fatalf("the manifest has no command of a %s: %v", probe, err)
	}
	return command
}

// crash kills the sidecar with SIGKILL, as running out of memory does.
func (r *containedSidecar) crash() {
	r.sandbox.t.Helper()
	r.killed = true
	r.container.Kill()
	r.awaitExit()
}

// worker is the pod's other container: it asks all the time, and says what it is answered.
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
		Env: []string{helperEnv + "=1", "WANT=" + p.value},
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
	eventually(w.pod.t, "the worker is answered", func() bool { return w.answered() >= before+more })
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

// awaitEnd waits for the end of a worker that was told to end, and checks that it has done all that it began.
func (w *worker) awaitEnd() {
	w.pod.t.Helper()
	if err := w.command.Wait(); err != nil {
		w.pod.t.Errorf("the worker ended with %v:\n%s", err, w.said)
	}
	if asked, answered := w.asked(), w.answered(); asked != answered+len(w.failures()) {
		w.pod.t.Errorf("the worker asked %d times and was answered %d times", asked, answered)
	}
}

// failures are what the worker was answered instead of a value.
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

// TestHelperWorksInAPod is no test: it is the worker. It ends after SIGTERM, when its last request is answered.
func TestHelperWorksInAPod(t *testing.T) {
	if os.Getenv(helperEnv) == "" {
		t.Skip("runs as a process of its own")
	}
	told, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	channel, err := grpc.NewClient("unix://"+podSocket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}}))
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
	request := &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/app/key", MaxAge: readVaultNow}
	answer, err := client.Resolve(ctx, request, grpc.WaitForReady(true))
	switch failed := failureOf(err); {
	case failed != nil:
		return fmt.Errorf("%v %s", failed.code, failed.reason)
	case answer.GetValue() != os.Getenv("WANT"):
		return fmt.Errorf("a wrong value")
	}
	return nil
}

// newWorkingPod returns a pod whose containers have started in the order of a native sidecar, and whose worker is being
// answered.
func newWorkingPod(t *testing.T) (*pod, *containedSidecar, *worker) {
	t.Helper()
	p := newPod(t)
	r := p.startSidecar()
	r.awaitStarted()
	w := p.startWorker()
	w.awaitAnswers(10)
	return p, r, w
}

func TestInAPodTheSidecarServesAWorkerOfAnotherUserAndNobodyOutsideTheirGroup(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	r := p.startSidecar()
	r.awaitStarted()
	w := p.startWorker() // a native sidecar's order
	w.awaitAnswers(20)
	r.container.RequireConfined(podSidecar)
	r.container.RequireLimits()
	w.container.RequireConfined(podWorker)
	w.container.RequireLimits()

	info, err := os.Stat(p.socket())
	p.must(err)
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode() != fs.ModeSocket|0o660 || owner.Uid != podSidecar || owner.Gid != podGroup {
		t.Errorf("the socket is %v of %d:%d", info.Mode(), owner.Uid, owner.Gid)
	}
	stranger := p.as(somebody{uid: podWorker + 1, gid: podWorker + 1}, "resolve", "secret/data/app/key")
	if stranger.code != 1 || !strings.Contains(stranger.stderr, "may not open the socket") {
		t.Errorf("a user outside of the group: %d %s%s", stranger.code, stranger.stdout, stranger.stderr)
	}
	w.end()
	w.requireNoFailure()
	r.stop()
}

func TestInAPodTheSidecarTakesGosMemoryLimitFromItsContainer(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	r := p.startSidecar()
	r.awaitStarted()
	if containertest.Limited(t) && !r.logs("memory limit taken from the control group", fmt.Sprintf(`"bytes":%d}`, podMemory/10*9)) {
		t.Errorf("the log does not tell of 90 %% of the container's %d bytes:\n%s", podMemory, r.log)
	}
	r.stop()
}

// holdRequest waits until Vault has a request of the worker's that it does not answer until release is called.
func (p *pod) holdRequest() (release func()) {
	p.t.Helper()
	release = p.proxy.hold()
	before := p.proxy.count("secret/data/")
	eventually(p.t, "a request is in progress", func() bool { return p.proxy.count("secret/data/") > before })
	return release
}

func TestInAPodAWorkerThatStartsFirstWaitsForTheSidecarAndThenWorks(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	w := p.startWorker()
	eventually(t, "the worker asks", func() bool { return w.asked() > 0 })
	if w.answered() > 0 {
		t.Fatalf("the worker was answered without a sidecar:\n%s", w.said)
	}
	r := p.startSidecar()
	w.awaitAnswers(20)
	w.end()
	w.requireNoFailure()
	r.stop()
}

func TestInAPodAWorkerStartsBeforeTheLoginAndIsAnsweredAfterIt(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	release := p.proxy.holdPaths(loginPath)
	defer release()
	r := p.startSidecar()
	r.awaitStarted()
	w := p.startWorker()
	eventually(t, "the worker asks while the login is in progress", func() bool { return w.asked() > 0 && p.proxy.count(loginPath) > 0 })
	if err := r.probe("livenessProbe"); err != nil {
		t.Errorf("a login in progress gets the container restarted: %v", err)
	}
	if r.probe("readinessProbe") == nil {
		t.Error("the pod is ready before the login")
	}
	if w.answered() > 0 {
		t.Errorf("the worker was answered before the login:\n%s", w.said)
	}
	release()
	r.await("readinessProbe")
	w.awaitAnswers(20)
	w.end()
	w.requireNoFailure()
	r.stop()
}

func TestInAPodAKilledSidecarComesBackOnItsStaleSocket(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	r := p.startSidecar()
	r.awaitStarted()
	w := p.startWorker()
	for range 3 {
		w.awaitAnswers(10)
		r.crash()
		if _, err := os.Lstat(p.socket()); err != nil {
			t.Errorf("the crash has left no socket: %v", err)
		}
		r = p.startSidecar() // the kubelet restarts the container; the volume outlives it
		r.awaitStarted()
	}
	w.awaitAnswers(10)
	w.end()
	for _, failure := range w.failures() {
		// What was in progress when the process died, and what came before the next one's login.
		if failure != "Unavailable" && failure != "Unavailable LOGIN_PENDING" {
			t.Errorf("the worker was answered %s", failure)
		}
	}
	r.stop()
}

func TestInAPodTheWorkerEndsFirstWithAllItsAnswersAndThenTheSidecar(t *testing.T) {
	t.Parallel()
	p, r, w := newWorkingPod(t)

	release := p.holdRequest()
	defer release()
	p.must(w.command.Process.Signal(syscall.SIGTERM)) // the pod is deleted: workers are told first
	release()
	w.awaitEnd()
	w.requireNoFailure()
	requireHealth(t, r.sidecar, "", serving) // it has served to the end

	r.stop()
	if tokens := p.login.vault.RoleTokens(t, p.login.role); len(tokens) > 0 {
		t.Errorf("%d tokens have outlived the pod", len(tokens))
	}
	if _, err := os.Lstat(p.socket()); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestInAPodASidecarThatIsToldToEndFinishesWhatTheWorkerHasAsked(t *testing.T) {
	t.Parallel()
	p, r, w := newWorkingPod(t)

	release := p.holdRequest()
	defer release()
	answered := w.answered()
	r.terminate()
	eventually(t, "the sidecar is stopping", func() bool { return r.logs("stopping") })
	release()
	eventually(t, "the request in progress is answered", func() bool { return w.answered() > answered })
	r.stop()
	w.kill()
	for _, failure := range w.failures() {
		if failure != "Unavailable SHUTTING_DOWN" && failure != "Unavailable" {
			t.Errorf("the worker was answered %s", failure)
		}
	}
}

func TestInAPodAConfigMapAndASecretAreSwappedWithoutADroppedRequest(t *testing.T) {
	t.Parallel()
	p, r, w := newWorkingPod(t)

	more := strings.Replace(p.login.connection("more", p.proxy.address, "secret_id_file: /etc/vault/secret-id"), "prod", "more", 1)
	p.config.swap(map[string]string{"config.yaml": p.configText("timeout: 20s", "max_waiting: 500") + more})
	eventually(t, "the new connection is ready", func() bool {
		list, err := r.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
		return err == nil && len(list.GetConnections()) == 2 && r.health("connection/more") == serving
	})
	w.awaitAnswers(10)

	p.secret.swap(map[string]string{"secret-id": p.login.newSecretID()})
	eventually(t, "both connections use the new secret_id", func() bool {
		return strings.Count(r.log.String(), "Vault accepts the new credentials") == 2
	})
	p.login.destroySecretID(p.login.secretID)
	w.awaitAnswers(10)
	w.end()
	w.requireNoFailure()
	r.stop()
}
