package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

var limited = failure{codes.ResourceExhausted, "RATE_LIMITED"}

// specFor describes a connection to a Vault with a login's credentials.
func specFor(l *login, address string) *secretsidecarv1.TestConnectionRequest {
	return &secretsidecarv1.TestConnectionRequest{Target: &secretsidecarv1.TestConnectionRequest_Spec{
		Spec: &secretsidecarv1.ConnectionSpec{Name: "tried", Address: address, RoleId: l.roleID,
			SecretId: l.secretID},
	}}
}

func TestATestOfASpecTakesARuleThatNamesIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, rule string
		configured bool // TestConnection of a configured connection is allowed
		spec       bool
	}{
		{"without rules", "", true, true},
		{"a rule for everything", "callers: [{uid: UID}]\n", true, false},
		{"a rule for TestConnection", "callers: [{uid: UID, methods: [TestConnection]}]\n", true, false},
		{"a rule for TestConnectionSpec",
			"callers: [{uid: UID, methods: [TestConnectionSpec], connections: [prod]}]\n", false,
			true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSetupWith(t, vaulttest.Dev(t), strings.ReplaceAll(test.rule, "UID", ownUID()))
			_, err := s.testNamed("prod")
			requireAllowed(t, s, err, test.configured)
			_, err = s.TestConnection(t.Context(), specFor(s.login, s.vault.Address))
			requireAllowed(t, s, err, test.spec)
		})
	}
}

func TestTheItemsOfABatchAreJudgedOneByOne(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	value := s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", value)
	text := s.configText(s.defaultLogin(v).connection("prod", v.Address),
		s.defaultLogin(v).connection("other", v.Address)) +
		"callers: [{uid: " + ownUID() +
		", connections: [prod], projects: [p1], methods: [BatchResolve]}]\n"
	r := s.start("--config", s.write("config.yaml", text))
	const path = "secret/data/app/key"
	answer, err := r.BatchResolve(t.Context(),
		&secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{
			{Connection: "prod", Path: path, ProjectId: "p1"},
			{Connection: "prod", Path: path, ProjectId: "p2"},
			{Connection: "prod", Path: path},
			{Connection: "other", Path: path, ProjectId: "p1"},
		}})
	s.must(err)
	for i, want := range []string{"", "PROJECT_NOT_ALLOWED", "PROJECT_REQUIRED",
		"CALLER_NOT_ALLOWED"} {
		result := answer.GetResults()[i]
		if result.GetError().GetReason() != want ||
			(want == "") != (result.GetSecret().GetValue() == value) {
			t.Errorf("item %d: %v, want %q", i, result, want)
		}
	}
	_, err = r.Resolve(t.Context(),
		&secretsidecarv1.ResolveRequest{Connection: "prod", Path: path, ProjectId: "p1"})
	requireFailure(t, s, err, callerNotAllowed)
}

func requireAllowed(t *testing.T, s recorder, err error, allowed bool) {
	t.Helper()
	if allowed {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	requireFailure(t, s, err, callerNotAllowed)
}

func TestATestOfASpecReachesAllowedAddressesAlone(t *testing.T) {
	t.Parallel()
	const allow = "test_connection: {allow: [10.0.0.0/8, vault.example]}\n"
	s := newSetupWith(t, vaulttest.Dev(t), allow)
	g := s.newProxy(s.vault) // another address of the same Vault
	for _, address := range []string{g.address, "http://169.254.169.254", "http://evil.example",
		"http://vault.example.evil.example"} {
		_, err := s.TestConnection(t.Context(), specFor(s.login, address))
		if address == g.address || !strings.Contains(address, "example") {
			requireFailure(t, s, err, callerNotAllowed)
		}
	}
	byName, err := s.TestConnection(t.Context(),
		specFor(s.login, strings.Replace(g.address, "127.0.0.1", "localhost", 1)))
	if err != nil || byName.GetOk() ||
		!strings.Contains(byName.GetChecks()[0].GetRemedy(), "test_connection.allow") {
		t.Errorf("a name that resolves to what is not allowed: %v, %v", byName, err)
	}
	if seen := len(g.seen()); seen != 0 {
		t.Errorf("%d requests have left", seen)
	}
	// A reload widens it.
	s.writeConfig(strings.Replace(allow, "10.0.0.0/8", "127.0.0.0/8", 1))
	eventually(t, "the wider list is in force", func() bool {
		report, err := s.TestConnection(t.Context(), specFor(s.login, g.address))
		return err == nil && report.GetOk()
	})
}

func TestTestsOfSpecsAreLimitedInRate(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t))
	began, answered := time.Now(), 0
	for answered < 60 {
		_, err := s.TestConnection(t.Context(), specFor(s.login, s.vault.Address))
		if err != nil {
			requireFailure(t, s, err, limited)
			break
		}
		answered++
	}
	// One more became due in every 2 s that the tests took.
	requireBetween(t, "tests that were answered", answered, 30,
		31+int(time.Since(began)/(2*time.Second)))
}

func TestOneCallerCannotTakeMoreThanItsLimits(t *testing.T) {
	t.Parallel()
	s := newSetupWith(t, vaulttest.Dev(t), "caller_limits: {in_flight: 5}\n")
	for i := range 5 {
		s.writeSecret(s.vault, fmt.Sprintf("secret/data/slow-%d", i), "key", s.secret)
	}
	s.value("secret/data/app/key", s.secret, fromVault)

	t.Run("requests in progress", func(t *testing.T) {
		s := s.in(t)
		release := s.proxy.hold()
		defer release()
		var waiting sync.WaitGroup
		for i := range 5 {
			waiting.Go(func() {
				if answer, err := s.resolve(fmt.Sprintf("secret/data/slow-%d/key",
					i)); err != nil ||
					answer.GetValue() != s.secret {
					t.Errorf("a request within the limit: %v, %v", answer, err)
				}
			})
		}
		// A read of its own for each shows that all five are in progress before the sixth comes.
		eventually(t, "five wait for Vault",
			func() bool { return s.proxy.count("secret/data/slow-") == 5 })
		_, err := s.resolve("secret/data/app/key")
		requireFailure(t, s, err, limited)
		// Another process is another caller.
		done := s.revealing("resolve", "secret/data/app/key")
		if done.code != 0 || strings.TrimSpace(done.stdout) != s.secret {
			t.Errorf("another process ended with %d: %s", done.code, done.stderr)
		}
		release()
		waiting.Wait()
		s.value("secret/data/app/key", s.secret, fromCache)
	})

	t.Run("secrets in a second, after a reload", func(t *testing.T) {
		s := s.in(t)
		s.writeConfig("caller_limits: {per_second: 10}\n")
		// Two batches of this size are more than the limit allows at once, however slow the machine
		// is.
		batch := &secretsidecarv1.BatchResolveRequest{
			Requests: slices.Repeat(
				[]*secretsidecarv1.ResolveRequest{{Path: "secret/data/app/key"}}, 256),
		}
		eventually(t, "the caller has used up what it may ask for", func() bool {
			_, err := s.BatchResolve(t.Context(), batch)
			failed := failureOf(err)
			return failed != nil && *failed == limited
		})
		eventually(t, "it may ask again soon", func() bool {
			_, err := s.resolve("secret/data/app/key")
			return err == nil
		})
	})
}

func TestReflectionCanBeTurnedOffWhileItRuns(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t))
	list := func() outcome {
		return s.execute(exec.Command(os.Getenv("GRPCURL"), "-plaintext", "-unix", s.socket(),
			"list"))
	}
	if os.Getenv("GRPCURL") == "" {
		t.Skip("set GRPCURL to grpcurl (make test does)")
	}
	if done := list(); done.code != 0 ||
		!strings.Contains(done.stdout, "secretsidecar.v1.SecretService") {
		t.Fatalf("grpcurl list: %+v", done)
	}
	s.writeConfig("reflection: false\n")
	eventually(t, "reflection is off", func() bool { return list().code != 0 })
	requireHealth(t, s.sidecar, "", serving)
}

// TestADescriptorThatIsPassedOnKeepsTheIdentityOfWhoConnected shows what SO_PEERCRED means: the
// kernel recorded the process that called connect. A privileged process that hands its open
// connection to another one hands over its right to ask, as it could hand over the secret itself.
func TestADescriptorThatIsPassedOnKeepsTheIdentityOfWhoConnected(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run processes as other users")
	}
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	value := s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", value)
	for _, directory := range []string{s.dir, s.subdirectory("run")} {
		s.must(os.Chmod(directory, 0o755)) // #nosec G302 -- other users have to reach the socket
	}
	text := strings.Replace(s.configText(s.defaultLogin(v).connection("prod", v.Address)),
		s.socket(),
		s.socket()+`, mode: "0666"`, 1)
	r := s.startWith(nil, "--config", s.write("config.yaml", text+"callers: [{uid: 0}]\n"))
	r.awaitHealth("")

	// Root connects; a process without any right gets the descriptor as its standard input.
	conn := (&attackSetup{sidecar: r}).connect()
	defer func() { _ = conn.Close() }()
	file, err := conn.(interface{ File() (*os.File, error) }).File()
	s.must(err)
	defer func() { _ = file.Close() }()
	ask := exec.Command(os.Args[0], "-test.run=^TestHelperAsksOnItsStandardInput$", "-test.v")
	ask.Stdin, ask.Dir = file, "/"
	ask.Env = s.environ(helperEnv + "=1")
	ask.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 41099, Gid: 41099}}
	s.makeReadable(os.Args[0], ask)
	done := s.execute(ask)
	if !strings.Contains(done.stdout, "answered: OK") {
		t.Errorf("on a passed descriptor: %s%s", done.stdout, done.stderr)
	}
	// The same user over a connection of its own.
	own := s.as(somebody{uid: 41099, gid: 41099}, "resolve", "secret/data/app/key")
	if own.code != 1 || !strings.Contains(own.stderr, "CALLER_NOT_ALLOWED") {
		t.Errorf("on a connection of its own: %d %s", own.code, own.stderr)
	}
}

// makeReadable makes the command run a copy of a program that every user may execute.
func (s *sandbox) makeReadable(program string, command *exec.Cmd) {
	s.t.Helper()
	content, err := os.ReadFile(program)
	s.must(err)
	copied := s.path("helper")
	s.must(os.WriteFile(copied, content, 0o755)) // #nosec G306 -- to be executed by another user
	command.Path = copied
}

const helperEnv = "E2E_HELPER"

// TestHelperAsksOnItsStandardInput is no test: it is the other process of the one above.
func TestHelperAsksOnItsStandardInput(t *testing.T) {
	if os.Getenv(helperEnv) == "" {
		t.Skip("runs as a process of its own")
	}
	channel, err := grpc.NewClient("passthrough:///stdin",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dialStdin))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = channel.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = secretsidecarv1.NewSecretServiceClient(channel).Resolve(ctx,
		&secretsidecarv1.ResolveRequest{Path: "secret/data/app/key"})
	t.Logf("answered: %v", codeOf(err))
}

func dialStdin(context.Context, string) (net.Conn, error) { return net.FileConn(os.Stdin) }

func ownUID() string { return strconv.Itoa(os.Getuid()) }
