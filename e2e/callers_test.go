package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// somebody is a user that a test runs the binary as.
type somebody struct {
	uid, gid uint32
	groups   []uint32
}

// as runs the binary as somebody else. Its standard output may hold secrets.
func (s *sandbox) as(who somebody, args ...string) outcome {
	s.t.Helper()
	command := exec.Command(binary, args...)
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.uid,
		Gid: who.gid, Groups: who.groups}}
	return s.execute(command)
}

func TestCallersAreWhoTheKernelSaysTheyAre(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run processes as other users")
	}
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	value := s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", value)
	for _, directory := range []string{s.dir,
		s.subdirectory(filepath.Base(filepath.Dir(s.socket())))} {
		if err := os.Chmod(directory, 0o755); err != nil { // #nosec G302 -- every user of this test has to reach the socket
			t.Fatal(err)
		}
	}
	const rules = `
callers:
  - {uid: 41001, connections: [prod]}
  - {uid: 41002, projects: [p1], methods: [Resolve]}
  - {gid: 42001, methods: [ListConnections, Resolve], connections: [prod]}
  - {uid: 41003, gid: 42002}
`
	l := s.defaultLogin(v)
	text := s.configText(l.connection("other", v.Address), l.connection("prod", v.Address))
	text = strings.Replace(text, s.socket(), s.socket()+`, mode: "0666"`, 1) + rules
	r := s.startWith(nil, "--config", s.write("config.yaml", text))
	r.awaitHealth("") // the health service is for everybody

	resolve := func(more ...string) []string {
		return append([]string{"resolve", "secret/data/app/key"}, more...)
	}
	prod, other, project := []string{"--connection", "prod"}, []string{"--connection",
		"other"}, []string{"--connection", "prod", "--project"}
	for _, test := range []struct {
		name   string
		who    somebody
		args   []string
		reason string // empty: allowed
	}{
		{"a listed user", somebody{uid: 41001, gid: 41001}, resolve(prod...), ""},
		{"a listed user, another connection", somebody{uid: 41001, gid: 41001}, resolve(other...),
			"CALLER_NOT_ALLOWED"},
		{"a listed user, any method", somebody{uid: 41001, gid: 41001},
			[]string{"invalidate", "--connection", "prod"}, ""},
		{"a listed user, all connections at once", somebody{uid: 41001, gid: 41001},
			[]string{"invalidate"}, "CALLER_NOT_ALLOWED"},
		{"an unlisted user", somebody{uid: 41009, gid: 41001}, resolve(prod...), "CALLER_NOT_ALLOWED"},
		{"an unlisted user, a connection that does not exist", somebody{uid: 41009, gid: 41001},
			resolve("--connection", "absent"), "CALLER_NOT_ALLOWED"},
		{"root", somebody{}, resolve(prod...), "CALLER_NOT_ALLOWED"},
		{"its project", somebody{uid: 41002, gid: 41002}, resolve(append(project, "p1")...), ""},
		{"another project", somebody{uid: 41002, gid: 41002}, resolve(append(project, "p2")...),
			"PROJECT_NOT_ALLOWED"},
		{"no project", somebody{uid: 41002, gid: 41002}, resolve(prod...), "PROJECT_REQUIRED"},
		{"another method", somebody{uid: 41002, gid: 41002}, []string{"connections", "list"},
			"CALLER_NOT_ALLOWED"},
		{"a primary group", somebody{uid: 41010, gid: 42001}, resolve(prod...), ""},
		{"a supplementary group", somebody{uid: 41010, gid: 41010, groups: []uint32{1, 42001}},
			resolve(prod...), ""},
		{"a supplementary group, another method",
			somebody{uid: 41010, gid: 41010, groups: []uint32{42001}}, []string{"invalidate",
				"--connection", "prod"}, "CALLER_NOT_ALLOWED"},
		{"both of uid and gid", somebody{uid: 41003, gid: 42002}, resolve(other...), ""},
		{"only the uid of both", somebody{uid: 41003, gid: 41003}, resolve(other...),
			"CALLER_NOT_ALLOWED"},
		{"only the gid of both", somebody{uid: 41004, gid: 42002}, resolve(other...),
			"CALLER_NOT_ALLOWED"},
		{"health", somebody{uid: 41009, gid: 41009}, []string{"health"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := s.in(t)
			done := s.as(test.who, test.args...)
			switch {
			case test.reason == "" && done.code != 0:
				t.Errorf("%v ended with %d: %s", test.args, done.code, done.stderr)
			case test.reason != "" && (done.code != 1 ||
				!strings.Contains(done.stderr, test.reason)):
				t.Errorf("%v ended with %d, want 1 and %s: %s", test.args, done.code, test.reason,
					done.stderr)
			case test.reason != "" && done.stdout != "":
				t.Errorf("a refused caller was told %q", done.stdout)
			}
		})
	}
	t.Run("a caller sees its own connections only", func(t *testing.T) {
		done := s.in(t).as(somebody{uid: 41010, gid: 42001}, "connections", "list")
		if !strings.Contains(done.stdout, "prod") || strings.Contains(done.stdout, "other") {
			t.Errorf("the list is %s%s", done.stdout, done.stderr)
		}
	})
	t.Run("the socket's mode comes first", func(t *testing.T) {
		s := newSandbox(t)
		if err := os.Chmod(s.dir, 0o755); err != nil { // #nosec G302 -- so that the socket's directory is what keeps others out
			t.Fatal(err)
		}
		s.start("--config", s.config(s.defaultLogin(v).connection("prod", v.Address)))
		done := s.as(somebody{uid: 41001, gid: 41001}, resolve()...)
		if done.code != 1 || !strings.Contains(done.stderr,
			fmt.Sprintf("may not open the socket %s", s.socket())) {
			t.Errorf("resolve ended with %d: %s", done.code, done.stderr)
		}
	})
}

func TestAnEmptyListOfCallersLetsNobodyIn(t *testing.T) {
	t.Parallel()
	s := newSetupWith(t, vaulttest.Dev(t), "callers: []\n")
	_, err := s.resolve("secret/data/app/key")
	requireFailure(t, s, err, callerNotAllowed)
}
