package vaulttest

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// raftConfig is the configuration of a node: where its data are, its two addresses, its name, and
// how patient it is with the others. The short election time of a lonely one makes a restart take a
// second or two.
const raftConfig = `
storage "raft" {
  path                   = %[1]q
  node_id                = %[4]q
  performance_multiplier = %[5]d
}
listener "tcp" {
  address         = %[2]q
  cluster_address = %[3]q
  tls_disable     = true
}
api_addr      = "http://%[2]s"
cluster_addr  = "https://%[3]s"
disable_mlock = true
`

// Raft starts a real Vault of the test's own whose data survive Kill and Restart. It ends with the
// test. It skips like Real.
func Raft(t testing.TB) *Vault {
	t.Helper()
	p, err := startUntilItWorks(func() (*process, error) { return tryRaft(vaultBinary(t)) })
	if err != nil {
		t.Fatalf("start a real Vault with raft storage: %v", err)
	}
	t.Cleanup(p.stop)
	v := &Vault{Name: "real", Address: p.address, RootToken: p.rootToken, process: p}
	v.Mark(t)
	return v
}

// Kill ends a Vault of Raft's the way a crash does.
func (v *Vault) Kill(t testing.TB) {
	t.Helper()
	v.requireRaft(t)
	v.process.kill()
}

// Restart starts a killed Vault again, at its old address, and unseals it.
func (v *Vault) Restart(t testing.TB) {
	t.Helper()
	v.StartSealed(t)
	v.Unseal(t)
}

// StartSealed starts a killed Vault again, at its old address, and leaves it sealed.
func (v *Vault) StartSealed(t testing.TB) {
	t.Helper()
	v.requireRaft(t)
	if err := errors.Join(v.process.start(v.process.raftCommand()),
		v.process.waitUntil(v.process.listens)); err != nil {
		t.Fatalf("start Vault again: %v", err)
	}
}

// Snapshot returns a snapshot of everything that the Vault holds, tokens and roles included.
func (v *Vault) Snapshot(t testing.TB) string {
	t.Helper()
	v.requireRaft(t)
	answer := v.Call(t, v.RootToken, http.MethodGet, "sys/storage/raft/snapshot", nil, nil)
	if answer.Status != http.StatusOK {
		t.Fatalf("take a snapshot: %d %s", answer.Status, answer.Text)
	}
	return answer.Text
}

// Restore puts the Vault back to what it was when the snapshot was taken, and unseals it where that
// sealed it.
func (v *Vault) Restore(t testing.TB, snapshot string) {
	t.Helper()
	v.requireRaft(t)
	answer := v.Call(t, v.RootToken, http.MethodPost, "sys/storage/raft/snapshot-force", snapshot,
		nil)
	if answer.Status/100 != 2 {
		t.Fatalf("restore a snapshot: %d %s", answer.Status, answer.Text)
	}
	v.Unseal(t)
}

func (v *Vault) requireRaft(t testing.TB) {
	t.Helper()
	if v.process == nil || v.process.cluster == "" {
		t.Fatal("this Vault has no storage of its own: take one of Raft's")
	}
}

func tryRaft(binary string) (*process, error) {
	dir, err := os.MkdirTemp("", "vaulttest-")
	if err != nil {
		return nil, err
	}
	p := &process{binary: binary, dir: dir}
	if err := p.setUpRaft("node", 1); err != nil {
		return nil, p.abandon(err)
	}
	return p, nil
}

// abandon ends a process that could not be set up, and adds what it said.
func (p *process) abandon(err error) error {
	output, _ := os.ReadFile(p.logFile())
	p.stop()
	return fmt.Errorf("%w; it said:\n%s", err, output)
}

// setUpRaft makes an empty Vault one that works: initialised, unsealed, with KV version 2 and an
// audit log.
func (p *process) setUpRaft(name string, patience int) error {
	if err := p.startNode(name, patience); err != nil {
		return err
	}
	for _, step := range []func() error{
		p.initialise, p.unseal,
		func() error {
			return p.waitUntil(p.mountKV)
		}, func() error { return p.waitUntil(p.answers) }, p.enableAudit,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// startNode starts a node that knows nothing yet, and waits until it listens.
func (p *process) startNode(name string, patience int) error {
	host, err := FreeAddress()
	if err != nil {
		return err
	}
	if p.cluster, err = FreeAddress(); err != nil {
		return err
	}
	p.address = "http://" + host
	if err := p.writeRaftConfig(name, patience); err != nil {
		return err
	}
	if err := p.start(p.raftCommand()); err != nil {
		return err
	}
	return p.waitUntil(p.listens)
}

func (p *process) raftCommand() *exec.Cmd {
	return exec.Command(p.binary, "server", "-config="+filepath.Join(p.dir, "vault.hcl"))
}

func (p *process) writeRaftConfig(name string, patience int) error {
	data := filepath.Join(p.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	text := fmt.Sprintf(raftConfig, data, strings.TrimPrefix(p.address, "http://"), p.cluster, name,
		patience)
	return os.WriteFile(filepath.Join(p.dir, "vault.hcl"), []byte(text), 0o600)
}

// listens reports whether the server answers at all, sealed perhaps.
func (p *process) listens() error {
	_, err := call(p.address, "", http.MethodGet, "sys/seal-status", nil, nil)
	return err
}

func (p *process) initialise() error {
	answer, err := call(p.address, "", http.MethodPut, "sys/init",
		map[string]any{"secret_shares": 1, "secret_threshold": 1}, nil)
	if err != nil {
		return err
	}
	keys, _ := answer.Body["keys"].([]any)
	p.rootToken, _ = answer.Body["root_token"].(string)
	if len(keys) != 1 || p.rootToken == "" {
		return fmt.Errorf("initialise: %d %s", answer.Status, answer.Text)
	}
	p.unsealKey, _ = keys[0].(string)
	return nil
}

func (p *process) unseal() error {
	answer, err := call(p.address, "", http.MethodPut, "sys/unseal",
		map[string]any{"key": p.unsealKey}, nil)
	if err == nil && answer.Status != http.StatusOK {
		err = fmt.Errorf("unseal: %d %s", answer.Status, answer.Text)
	}
	return err
}

func (p *process) mountKV() error {
	body := map[string]any{"type": "kv", "options": map[string]any{"version": "2"}}
	answer, err := call(p.address, p.rootToken, http.MethodPost, "sys/mounts/secret", body, nil)
	if err == nil && answer.Status/100 != 2 {
		err = fmt.Errorf("mount KV: %d %s", answer.Status, answer.Text)
	}
	return err
}
