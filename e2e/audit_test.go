package e2e_test

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

var auditFailed = failure{codes.Unavailable, "AUDIT_FAILED"}

// auditLines reads an audit log; every line has to be JSON.
func (s *sandbox) auditLines(name string) []map[string]any {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	s.must(err)
	s.record(name, string(text))
	var lines []map[string]any
	for line := range strings.Lines(string(text)) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, fields)
	}
	return lines
}

func TestEverySecretThatIsAskedForIsAudited(t *testing.T) {
	t.Parallel()
	s := newSetupWith(t, vaulttest.Dev(t), "audit: {file: audit.log}\n")

	const trace = "0af7651916cd43dd8448eb211c80319c"
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent",
		"00-"+trace+"-b7ad6b7169203331-01")
	ask := func(path string) *secretsidecarv1.ResolveRequest {
		return &secretsidecarv1.ResolveRequest{Path: path, ProjectId: "p1"}
	}
	_, _ = s.Resolve(ctx, ask("secret/data/app/key"))
	_, _ = s.Resolve(ctx, ask("secret/data/app/key"))
	_, _ = s.BatchResolve(t.Context(),
		&secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{
			{Connection: "prod", Path: "secret/data/app",
				Key: "key"}, ask("secret/data/absent/key"), ask("../etc/passwd"),
			{Connection: "nobody", Path: "secret/data/app/key"},
		}})
	_, _ = s.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
		Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: "prod"},
		Path:   "secret/data/app/key"})
	_, _ = s.testNamed("prod")
	_, _ = s.testNamed("nobody")
	_, _ = s.TestConnection(t.Context(), specFor(s.login, s.vault.Address))
	wrong := specFor(s.login, strings.Replace(s.vault.Address, "http://", "http://user:pass@", 1))
	_, _ = s.TestConnection(t.Context(), wrong)
	_, _ = s.Invalidate(t.Context(),
		&secretsidecarv1.InvalidateRequest{Path: "secret/data/app/key"})
	_, _ = s.Invalidate(t.Context(),
		&secretsidecarv1.InvalidateRequest{Connection: "prod", RenewLogin: true})
	_, _ = s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Path: "nonsense"})
	_, _ = s.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})

	lines := s.auditLines("audit.log")
	var got []string
	for _, line := range lines {
		parts := []string{line["method"].(string), line["connection"].(string),
			line["path"].(string),
			line["outcome"].(string)}
		if source, ok := line["source"].(string); ok {
			parts = append(parts, source)
		}
		if address, ok := line["address"].(string); ok {
			parts = append(parts, "at", address)
		}
		if line["renew_login"] == true {
			parts = append(parts, "with a new login")
		}
		got = append(got, strings.Join(parts, " "))
		if int(line["pid"].(float64)) != os.Getpid() || int(line["uid"].(float64)) != os.Getuid() ||
			line["time"] == nil {
			t.Errorf("who and when: %v", line)
		}
	}
	want := []string{
		"Resolve prod secret/data/app/key ok vault",
		"Resolve prod secret/data/app/key ok cache",
		"BatchResolve prod secret/data/app ok cache",
		"BatchResolve prod secret/data/absent/key SECRET_NOT_FOUND",
		"BatchResolve  ../etc/passwd INVALID_PATH",
		"BatchResolve nobody secret/data/app/key CONNECTION_NOT_FOUND",
		"TestConnection prod secret/data/app/key ok",
		"TestConnection prod  ok",
		"TestConnection nobody  CONNECTION_NOT_FOUND",
		"TestConnection tried  ok at " + strings.TrimPrefix(s.vault.Address, "http://"),
		"TestConnection tried  INVALID_REQUEST",
		"Invalidate  secret/data/app/key ok",
		"Invalidate prod  ok with a new login",
		"Invalidate  nonsense INVALID_PATH",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the audit log says\n%s\nwant\n%s", strings.Join(got, "\n"),
			strings.Join(want, "\n"))
	}
	if lines[0]["trace_id"] != trace || lines[0]["project"] != "p1" || lines[0]["version"] != 1.0 ||
		lines[2]["key"] != "key" {
		t.Errorf("the first lines are %v", lines[:3])
	}
}

func TestTheAuditLogIsReopenedOnSIGHUP(t *testing.T) {
	t.Parallel()
	s := newSetupWith(t, vaulttest.Dev(t), "audit: {file: audit.log, hash_paths: true}\n")
	s.value("secret/data/app/key", s.secret, fromVault)
	s.must(os.Rename(s.path("audit.log"), s.path("audit.log.1")))
	s.value("secret/data/app/key", s.secret, fromCache)
	s.signal(syscall.SIGHUP)
	eventually(t, "the file is there again",
		func() bool { _, err := os.Stat(s.path("audit.log")); return err == nil })
	s.value("secret/data/app/key", s.secret, fromCache)
	old, now := s.auditLines("audit.log.1"), s.auditLines("audit.log")
	if len(old) != 2 || len(now) != 1 || !strings.HasPrefix(now[0]["path"].(string), "sha256:") {
		t.Errorf("the rotated file holds %v, the new one %v", old, now)
	}
}

func TestARequestThatCannotBeAuditedIsRefusedWhereThatIsRequired(t *testing.T) {
	t.Parallel()
	for _, required := range []string{"true", "false"} {
		t.Run("required: "+required, func(t *testing.T) {
			t.Parallel()
			s := newSetupWith(t, vaulttest.Dev(t),
				"audit: {file: audit.log, required: "+required+"}\n")
			s.limitFiles(0)
			answer, err := s.resolve("secret/data/app/key")
			batch, batchErr := s.BatchResolve(t.Context(), &secretsidecarv1.BatchResolveRequest{
				Requests: []*secretsidecarv1.ResolveRequest{{Path: "secret/data/app/key"}}})
			if required == "true" {
				requireFailure(t, s, err, auditFailed)
				requireFailure(t, s, batchErr, auditFailed)
			} else if err != nil || answer.GetValue() != s.secret || batchErr != nil ||
				batch.GetResults()[0].GetSecret().GetValue() != s.secret {
				t.Errorf("resolve: %v, %v; batch: %v, %v", answer, err, batch, batchErr)
			}
			eventually(t, "the log tells of it",
				func() bool {
					return s.logs("the audit log cannot be written", s.path("audit.log"))
				})
			list := s.sandbox.run("connections", "list")
			if !strings.Contains(list.stdout, "audit log: ") ||
				!strings.Contains(list.stdout, s.path("audit.log")) {
				t.Errorf("connections list says %s", list.stdout)
			}
			if protections := s.protectionsOf(); protections["audit_log"] {
				t.Errorf("the protections in force are %v", protections)
			}
			requireHealth(t, s.sidecar, "audit", notServing)
			// With room again it heals, though nobody asks, and the file says how much is missing.
			s.limitFiles(math.MaxUint64)
			s.awaitHealth("audit")
			s.value("secret/data/app/key", s.secret, fromCache)
			eventually(t, "the file tells of the lines that are lost", func() bool {
				text, err := os.ReadFile(s.path("audit.log"))
				return err == nil && strings.Contains(string(text),
					`"outcome":"LINES_LOST","count":`)
			})
			if list := s.sandbox.run("connections", "list"); strings.Contains(list.stdout,
				"audit log") {
				t.Errorf("connections list says %s", list.stdout)
			}
		})
	}
}

// limitFiles bounds the files that the sidecar writes from now on, in bytes: a disk that is full.
func (s *setup) limitFiles(most uint64) {
	s.t.Helper()
	limit := unix.Rlimit{Cur: most, Max: math.MaxUint64}
	s.must(unix.Prlimit(s.command.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil))
}

func TestWhatIsNoFileIsRefusedAsAuditLogAtOnce(t *testing.T) {
	t.Parallel()
	s := newUnstartedSetup(t, vaulttest.Dev(t), nil, readSecrets)
	s.must(syscall.Mkfifo(s.path("pipe"), 0o600))
	for _, name := range []string{"pipe", ".", "/dev/null", "/nowhere/audit.log"} {
		began := time.Now()
		done := s.run("serve", "--config", s.writeConfig("audit: {file: "+name+"}\n"))
		if done.code != 2 || !strings.Contains(done.stderr, "open the audit log") {
			t.Errorf("%s: serve ended with %d: %s", name, done.code, done.stderr)
		}
		if took := time.Since(began); took > patience {
			t.Errorf("%s: refused after %v", name, took)
		}
	}
}

// A caller that is refused decides neither how long the lines are nor how many there are.
func TestRefusedCallersDoNotFillTheAuditLog(t *testing.T) {
	t.Parallel()
	harmful := strings.Repeat("\u202e\u0085\u009b\x7f\x01", 100)
	for _, test := range []struct {
		name, rules, reason string
		asked               int
	}{
		{"not listed", "callers: [{uid: 4294967294, methods: [Resolve]}]\n", "CALLER_NOT_ALLOWED", 300},
		{"too often", "caller_limits: {per_second: 1}\n", "RATE_LIMITED", 300},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSetupWith(t, vaulttest.Dev(t), "audit: {file: audit.log}\n"+test.rules)
			// The limit lets a whole batch through before it refuses.
			item := &secretsidecarv1.ResolveRequest{Path: harmful, ProjectId: harmful,
				Connection: harmful, Key: harmful}
			batch := &secretsidecarv1.BatchResolveRequest{
				Requests: slices.Repeat([]*secretsidecarv1.ResolveRequest{item}, 256)}
			_, _ = s.BatchResolve(t.Context(), batch)
			before := s.sizeOf("audit.log")
			for range test.asked {
				_, _ = s.BatchResolve(t.Context(), batch)
				_, _ = s.Resolve(t.Context(), item)
				_, _ = s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Path: harmful})
				_, _ = s.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
					Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: harmful},
					Path:   harmful})
			}
			if grown := s.sizeOf("audit.log") - before; grown > 16<<10 {
				t.Errorf("%d requests wrote %d bytes", 4*test.asked, grown)
			}
			s.terminate()
			s.awaitExit()
			var counted float64
			for _, line := range s.auditLines("audit.log") {
				if line["outcome"] == test.reason {
					count, _ := line["count"].(float64)
					counted += max(count, 1)
				}
			}
			if most := float64(300 * (256 + 4)); counted < most/2 {
				t.Errorf("the lines count %v refusals of about %v", counted, most)
			}
		})
	}
}

func (s *setup) sizeOf(name string) int64 {
	s.t.Helper()
	info, err := os.Stat(s.path(name))
	s.must(err)
	return info.Size()
}

func TestAnAuditLogThatCannotBeOpenedIsAMistakeOfTheConfiguration(t *testing.T) {
	t.Parallel()
	s := newUnstartedSetup(t, vaulttest.Dev(t), nil, readSecrets)
	if done := s.run("serve", "--config",
		s.writeConfig("audit: {file: /nowhere/audit.log}\n")); done.code != 2 ||
		!strings.Contains(done.stderr, "/nowhere/audit.log") {
		t.Errorf("serve ended with %d: %s", done.code, done.stderr)
	}
}
