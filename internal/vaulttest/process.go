package vaulttest

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTries = 5
	// startTimeout is many times what a start takes, on a busy machine too.
	startTimeout = 90 * time.Second
	startPoll    = 25 * time.Millisecond
)

// process is a real `vault server`.
type process struct {
	binary    string
	cluster   string // host:port that the nodes of a raft cluster use; empty in dev mode
	address   string
	rootToken string
	unsealKey string
	withTLS   bool
	ca        string   // in PEM format; empty without TLS
	audit     *os.File // its audit log; the file itself is already removed
	dir       string
	cmd       *exec.Cmd
}

func vaultBinary(t testing.TB) string {
	t.Helper()
	binary := os.Getenv("VAULT_BINARY")
	switch {
	case binary != "":
		return binary
	case os.Getenv("SECRET_SIDECAR_REQUIRE_REAL_VAULT") == "1":
		t.Fatal("a real Vault is required: set VAULT_BINARY to a vault executable (make test does)")
	default:
		t.Skip("no real Vault: set VAULT_BINARY to a vault executable to run this test against it")
	}
	return ""
}

var shared struct {
	once    sync.Once
	process *process
	err     error
}

// sharedProcess starts the real Vault that the tests of this binary share. Its files are removed as
// soon as it has opened them: nobody is left to do it when the binary ends.
func sharedProcess(binary string) (*process, error) {
	shared.once.Do(func() {
		if shared.process, shared.err = startDev(binary); shared.err == nil {
			shared.err = os.RemoveAll(shared.process.dir)
		}
	})
	return shared.process, shared.err
}

// startUntilItWorks starts a Vault on a free port. Another process may take the port before Vault
// does: it tries again.
func startUntilItWorks(try func() (*process, error)) (*process, error) {
	var failures error
	for range startTries {
		p, err := try()
		if err == nil {
			return p, nil
		}
		failures = errors.Join(failures, err)
	}
	return nil, failures
}

func startDev(binary string) (*process, error) {
	return startUntilItWorks(func() (*process, error) { return tryStart(binary, false) })
}

func tryStart(binary string, withTLS bool) (*process, error) {
	dir, err := os.MkdirTemp("", "vaulttest-")
	if err != nil {
		return nil, err
	}
	p := &process{binary: binary, rootToken: rand.Text(), dir: dir, withTLS: withTLS}
	if err := p.launch(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.setUp(); err != nil {
		output, _ := os.ReadFile(p.logFile())
		p.stop()
		return nil, fmt.Errorf("%w; it said:\n%s", err, output)
	}
	return p, nil
}

func (p *process) logFile() string { return filepath.Join(p.dir, "output") }

func (p *process) launch() error {
	host, err := FreeAddress()
	if err != nil {
		return err
	}
	p.address = "http://" + host
	command := exec.Command(p.binary, "server", "-dev", "-dev-no-store-token",
		"-dev-listen-address="+host)
	if plugins := filepath.Join(filepath.Dir(p.binary), "vault-plugins"); isDir(plugins) {
		command.Args = append(command.Args, "-dev-plugin-dir="+plugins)
	}
	if p.withTLS {
		p.address = "https://" + host
		command.Args = append(command.Args, "-dev-tls", "-dev-tls-cert-dir="+p.dir)
	}
	command.Env = []string{"VAULT_DEV_ROOT_TOKEN_ID=" + p.rootToken}
	return p.start(command)
}

// call sends a request with the root token.
func (p *process) call(method, path string, body any) (Answer, error) {
	return callBy(clientFor(p.ca), p.address, p.rootToken, method, path, body, nil)
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// kill ends the process and its plugins, and waits for its end.
func (p *process) kill() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may have ended already
	p.cmd.Wait()                                      //nolint:errcheck // it was killed
}

// start runs a command of the Vault binary, whose output goes to the end of the log file. The
// kernel kills it when the test binary ends, however that comes.
func (p *process) start(command *exec.Cmd) error {
	output, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close() //nolint:errcheck // the process has its own descriptor of it
	command.Env = append(command.Env, "HOME="+p.dir, "PATH="+os.Getenv("PATH"))
	command.Dir, command.Stdout, command.Stderr = p.dir, output, output
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd = command
	return command.Start()
}

// FreeAddress returns a host:port of this machine where nobody listens, for a server that is
// started, or stopped and started again, later. The kernel gives none of these ports to anybody who
// does not ask for it by its number: in the meantime no connection and no other test takes it by
// chance.
func FreeAddress() (string, error) {
	const first, after = 10_000, 32_768 // below what Linux and others hand out by themselves
	var failures error
	for range startTries {
		address := fmt.Sprintf("127.0.0.1:%d", first+mathrand.IntN(after-first))
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return address, listener.Close()
		}
		failures = errors.Join(failures, err)
	}
	return "", failures
}

// setUp waits until it is this Vault, with its own root token, that answers, and turns the audit
// log on.
func (p *process) setUp() error {
	if err := p.waitUntil(p.hasSaidUnsealKey); err != nil {
		return err
	}
	if p.withTLS {
		ca, err := os.ReadFile(filepath.Join(p.dir, "vault-ca.pem"))
		if err != nil {
			return err
		}
		p.ca = string(ca)
	}
	if err := p.waitUntil(p.answers); err != nil {
		return err
	}
	return p.enableAudit()
}

func (p *process) enableAudit() error {
	file := filepath.Join(p.dir, "audit")
	device := map[string]any{"type": "file",
		"options": map[string]any{"file_path": file, "log_raw": "false"}}
	answer, err := p.call(http.MethodPost, "sys/audit/file", device)
	if err != nil {
		return err
	}
	if answer.Status != http.StatusNoContent {
		return fmt.Errorf("enable the audit log: %d %s", answer.Status, answer.Text)
	}
	p.audit, err = os.Open(file)
	return err
}

// waitUntil polls a condition until Vault meets it.
func (p *process) waitUntil(met func() error) error {
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	poll := time.NewTicker(startPoll)
	defer poll.Stop()
	for {
		err := met()
		if err == nil {
			return nil
		}
		if p.exited() {
			return errors.New("vault ended at once")
		}
		select {
		case <-poll.C:
		case <-deadline.C:
			return fmt.Errorf("vault is not ready after %v: %w", startTimeout, err)
		}
	}
}

// answers reports whether the KV engine at secret/ is there for this Vault's root token.
func (p *process) answers() error {
	answer, err := p.call(http.MethodGet, "sys/mounts/secret", nil)
	if err == nil && answer.Status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", answer.Status, answer.Text)
	}
	return err
}

// exited reports whether the process has ended, without waiting for it.
func (p *process) exited() bool {
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WNOHANG, nil)
	return err != nil || pid != 0
}

var unsealKeyLine = regexp.MustCompile(`(?m)^Unseal Key: (\S+)$`)

// hasSaidUnsealKey reads the unseal key out of what Vault says at start.
func (p *process) hasSaidUnsealKey() error {
	output, err := os.ReadFile(p.logFile())
	if err != nil {
		return err
	}
	match := unsealKeyLine.FindSubmatch(output)
	if match == nil {
		return errors.New("it has not said its unseal key")
	}
	p.unsealKey = string(match[1])
	return nil
}

func (p *process) stop() {
	if p.cmd != nil && p.cmd.Process != nil {
		p.kill()
	}
	if p.audit != nil {
		p.audit.Close() //nolint:errcheck // it was only read
	}
	os.RemoveAll(p.dir) //nolint:errcheck // it is in the system's temporary directory
}
