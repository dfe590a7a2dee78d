package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// hasNodeClient reports whether there is Node.js 20 or later, and `make test-node` has built the
// client. With SECRET_SIDECAR_REQUIRE_CLIENTS=1 the test fails where there is not.
func hasNodeClient(t *testing.T) bool {
	t.Helper()
	why := ""
	isOld := "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"
	if err := exec.Command("node", "-e", isOld).Run(); err != nil {
		why = "there is no Node.js 20"
	} else if _, err := os.Stat(repository(t) + "/client/node/dist/esm"); err != nil {
		why = "the Node client is not built: make test-node"
	}
	if why != "" && os.Getenv("SECRET_SIDECAR_REQUIRE_CLIENTS") == "1" {
		t.Fatal(why)
	}
	if why != "" {
		t.Logf("not run in Node.js: %s", why)
	}
	return why == ""
}

// linkNodeClient makes the Node client that this tree builds known to the programs in the
// sandbox's directory.
func (s *sandbox) linkNodeClient() {
	s.t.Helper()
	scope := s.subdirectory("node_modules/@secret-sidecar")
	s.must(os.Symlink(repository(s.t)+"/client/node", filepath.Join(scope, "client")))
}

// node runs a program of the sandbox's directory with Node.js. Variables are like "NAME=value".
func (s *sandbox) node(program string, variables ...string) *exec.Cmd {
	command := exec.Command("node", program)
	command.Dir = s.dir
	command.Env = s.environ(append(variables, "SECRET_SIDECAR_SOCKET="+s.socket())...)
	return command
}
