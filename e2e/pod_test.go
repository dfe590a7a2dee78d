package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/e2e/containertest"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

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
	if !ok || info.Mode() != fs.ModeSocket|0o660 || owner.Uid != podSidecar ||
		owner.Gid != podGroup {
		t.Errorf("the socket is %v of %d:%d", info.Mode(), owner.Uid, owner.Gid)
	}
	stranger := p.as(somebody{uid: podWorker + 1, gid: podWorker + 1}, "resolve",
		"secret/data/app/key")
	if stranger.code != 1 || !strings.Contains(stranger.stderr, "may not open the socket") {
		t.Errorf("a user outside of the group: %d %s%s", stranger.code, stranger.stdout,
			stranger.stderr)
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
	if containertest.Limited(t) &&
		!r.logs("memory limit taken from the control group",
			fmt.Sprintf(`"bytes":%d}`, podMemory/10*9)) {
		t.Errorf("the log does not tell of 90 %% of the container's %d bytes:\n%s", podMemory,
			r.log)
	}
	r.stop()
}

// holdRequest waits until Vault has a request of the worker that it will not answer before release
// is called.
func (p *pod) holdRequest() (release func()) {
	p.t.Helper()
	release = p.proxy.hold()
	before := p.proxy.count("secret/data/")
	eventually(p.t, "a request is in progress",
		func() bool { return p.proxy.count("secret/data/") > before })
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
	eventually(t, "the worker asks while the login is in progress",
		func() bool { return w.asked() > 0 && p.proxy.count(loginPath) > 0 })
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
		if !isAny(failure, disconnected, loginPending) {
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
	eventually(t, "the request in progress is answered",
		func() bool { return w.answered() > answered })
	r.stop()
	w.kill()
	for _, failure := range w.failures() {
		if !isAny(failure, disconnected, shuttingDown) {
			t.Errorf("the worker was answered %s", failure)
		}
	}
}

func TestInAPodAConfigMapAndASecretAreSwappedWithoutADroppedRequest(t *testing.T) {
	t.Parallel()
	p, r, w := newWorkingPod(t)

	more := strings.Replace(p.login.connection("more", p.proxy.address,
		"secret_id_file: /etc/vault/secret-id"), "prod", "more", 1)
	p.config.swap(map[string]string{"config.yaml": p.configText("timeout: 20s",
		"max_waiting: 500") +
		more})
	eventually(t, "the new connection is ready", func() bool {
		list, err := r.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
		return err == nil && len(list.GetConnections()) == 2 &&
			r.health("connection/more") == serving
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
