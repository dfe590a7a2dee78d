package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// protectionsOf asks the command line what protects the process.
func (r *sidecar) protectionsOf() map[string]bool {
	r.sandbox.t.Helper()
	done := r.sandbox.run("connections", "list", "--output", "json")
	var answer struct {
		Process struct {
			Version     string
			Protections []struct {
				Name    string
				InForce bool `json:"in_force"`
			}
		}
	}
	if err := json.Unmarshal([]byte(done.stdout), &answer); err != nil ||
		answer.Process.Version == "" {
		r.sandbox.t.Fatalf("connections list: %v\n%s%s", err, done.stdout, done.stderr)
	}
	protections := map[string]bool{}
	for _, one := range answer.Process.Protections {
		protections[one.Name] = one.InForce
	}
	return protections
}

func TestTheProcessIsHardenedAndSaysSo(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t))
	protections := s.protectionsOf()
	for _, name := range []string{"not_dumpable", "no_core_files", "no_new_privileges"} {
		if !protections[name] {
			t.Errorf("%s is not in force: %v", name, protections)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.command.Process.Pid))
	s.must(err)
	if !strings.Contains(string(limits), "Max core file size        0                    0") {
		t.Errorf("core files are possible:\n%s", limits)
	}
	for _, name := range []string{"environ", "cmdline"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.command.Process.Pid, name))
		s.must(err)
		// the leak checker looks for every secret of the test
		s.record(name+" of the process", string(text))
	}
}

func TestWithLandlockTheSidecarWorksAndRotatesCredentials(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	l := s.defaultLogin(v)
	value := s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", value)
	kubernetes := s.newVolume("kubernetes")
	kubernetes.swap(map[string]string{"secret_id": l.secretID})
	text := s.configText(l.connection("prod", v.Address,
		"secret_id_file: "+kubernetes.file("secret_id"))) +
		"audit: {file: " + s.path("audit.log") + "}\n"
	r := s.startUnready("--config", s.write("config.yaml", text+"hardening: {landlock: try}\n"))
	if !r.protectionsOf()["files_restricted"] {
		t.Skip("this kernel has no Landlock")
	}
	r.awaitHealth("")
	r.value("secret/data/app/key", value, fromVault)
	kubernetes.swap(map[string]string{"secret_id": l.newSecretID()})
	eventually(t, "the new secret_id is in use",
		func() bool { return r.logs("Vault accepts the new credentials") })
	s.write("config.yaml", text+"# changed\n")
	eventually(t, "the configuration is reloaded",
		func() bool { return r.logs("configuration reloaded") })
	r.value("secret/data/app/key", value, fromCache)
	if lines := s.auditLines("audit.log"); len(lines) != 2 {
		t.Errorf("the audit log holds %v", lines)
	}
	r.stop()
	if _, err := os.Lstat(s.socket()); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestAProtectionThatIsRequiredAndCannotBeHadKeepsTheSidecarFromStarting(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run processes as other users")
	}
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	l := s.defaultLogin(v)
	for _, directory := range []string{s.dir, s.subdirectory("run")} {
		s.must(os.Chmod(directory, 0o777)) // #nosec G302 -- another user starts a sidecar here
	}
	config := s.write("config.yaml",
		s.configText(l.connection("prod", v.Address))+"hardening: {lock_memory: require}\n")
	s.must(os.Chmod(config, 0o644)) // #nosec G302 -- read by another user
	done := s.as(somebody{uid: 41001, gid: 41001}, "serve", "--config", config)
	if done.code != 1 || !strings.Contains(done.stderr, "hardening.lock_memory is required") ||
		!strings.Contains(done.stderr, "RLIMIT_MEMLOCK") {
		t.Errorf("serve ended with %d: %s", done.code, done.stderr)
	}
}
