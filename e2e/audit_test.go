package e2e_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

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
				"audit: {file: /dev/full, required: "+required+"}\n")
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
				func() bool { return s.logs("the audit log cannot be written") })
		})
	}
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
