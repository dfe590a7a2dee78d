package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// The example workers go through what a worker lives through: the sidecar is killed and comes back,
// and a secret is rotated while the sidecar has the old one in its cache.

func TestTheExampleWorkersSurviveARestartAndARotation(t *testing.T) {
	t.Parallel()
	for language, command := range map[string]func(*sandbox) *exec.Cmd{
		"Go": (*sandbox).goWorker, "Node.js": (*sandbox).nodeWorker,
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			s, v := newSandbox(t), vaulttest.Dev(t)
			worker := command(s)
			if worker == nil {
				return
			}
			api, older := newShop(t), s.newSecret()
			v.WriteSecret(t, "secret/data/shop", map[string]any{"account": "a-1", "token": older})
			api.token.Store(&older)
			file := s.config(s.defaultLogin(v).connection("prod", v.Address))
			sidecar := s.start("--config", file)
			ask := s.startWorker(worker, api.URL)

			ask("first", http.StatusOK)
			sidecar.kill()
			sidecar.awaitExit()
			s.start("--config", file)
			ask("after a restart", http.StatusOK)

			newer := s.newSecret()
			v.WriteSecret(t, "secret/data/shop", map[string]any{"account": "a-1", "token": newer})
			api.token.Store(&newer)
			ask("after a rotation", http.StatusOK)
			ask("later", http.StatusOK)
			if refused := api.refused.Load(); refused != 1 {
				t.Errorf("the API refused %d calls, want 1: that of the rotation", refused)
			}
		})
	}
}

// shop is an API that takes one token.
type shop struct {
	*httptest.Server
	token   atomic.Pointer[string]
	refused atomic.Int64
}

func newShop(t *testing.T) *shop {
	api := &shop{}
	api.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, account := r.Header.Get("Authorization"), r.Header.Get("X-Account")
		if token != "Bearer "+*api.token.Load() || account != "a-1" {
			api.refused.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(api.Close)
	return api
}

// startWorker starts a worker for an API, and returns what gives it a job and looks at its answer.
func (s *sandbox) startWorker(worker *exec.Cmd, api string) (ask func(job string, status int)) {
	s.t.Helper()
	worker.Env = s.environ("SECRET_SIDECAR_SOCKET="+s.socket(), fmt.Sprintf(
		`CONNECTION={"url":%q,"account":"{{prod|ap_sep_v1|secret/data/shop/account}}",`+
			`"token":"{{prod|ap_sep_v1|secret/data/shop/token}}"}`, api))
	stdin, err := worker.StdinPipe()
	s.must(err)
	stdout, err := worker.StdoutPipe()
	s.must(err)
	stderr := &output{}
	worker.Stderr = stderr
	s.must(worker.Start())
	tooLong := time.AfterFunc(patience, func() { _ = worker.Process.Kill() })
	said := bufio.NewReader(stdout)
	s.t.Cleanup(func() {
		tooLong.Stop()
		_ = stdin.Close()
		_, _ = io.Copy(io.Discard, said)
		if err := worker.Wait(); err != nil {
			s.t.Errorf("the worker ended with %v:\n%s", err, stderr)
		}
		s.record("stderr of the worker", stderr.String())
	})
	return func(job string, status int) {
		s.t.Helper()
		_, err := fmt.Fprintln(stdin, job)
		s.must(err)
		line, err := said.ReadString('\n')
		if want := fmt.Sprintf("%s %d\n", job, status); line != want {
			s.t.Fatalf("the worker said %q, want %q (%v):\n%s", line, want, err, stderr)
		}
	}
}

func (s *sandbox) goWorker() *exec.Cmd {
	s.t.Helper()
	program := s.path("worker")
	build := exec.Command("go", "build", "-o", program, "./client/examples/worker")
	build.Dir, build.Env = repository(s.t), os.Environ()
	if done := s.execute(build); done.code != 0 {
		s.t.Fatalf("build the worker:\n%s", done.stderr)
	}
	return exec.Command(program)
}

// nodeWorker returns nil where the Node client is not built.
func (s *sandbox) nodeWorker() *exec.Cmd {
	s.t.Helper()
	if !hasNodeClient(s.t) {
		return nil
	}
	text, err := os.ReadFile("../client/node/examples/worker.mjs")
	s.must(err)
	s.write("worker.mjs", string(text))
	s.linkNodeClient()
	return s.node("worker.mjs")
}
