package server_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

func TestTheLogSaysWhoIsRefusedWhatButNothingThatTheCallerSaid(t *testing.T) {
	v := newVault(t)
	uid := uint32(os.Getuid()) // #nosec G115 -- a uid
	asked := &secretsidecarv1.ResolveRequest{Connection: "their-word", Path: "secret/data/their-path/key", ProjectId: "their-project"}
	tests := []struct {
		name   string
		rules  []server.CallerRule
		limits server.CallerLimits
		ask    func(t *testing.T, running *sidecar)
		want   string // of the one line
	}{
		{
			name:  "a secret",
			rules: []server.CallerRule{},
			ask:   func(t *testing.T, running *sidecar) { _, _ = running.Resolve(t.Context(), asked) },
			want:  `msg="a caller is refused" method=Resolve reason=CALLER_NOT_ALLOWED`,
		},
		{
			name:  "another method",
			rules: []server.CallerRule{},
			ask: func(t *testing.T, running *sidecar) {
				_, _ = running.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Connection: "their-word"})
			},
			want: `msg="a caller is refused" method=Invalidate reason=CALLER_NOT_ALLOWED`,
		},
		{
			name:  "all items of a batch, once",
			rules: []server.CallerRule{{UID: &uid, Projects: []string{"p1"}}},
			ask: func(t *testing.T, running *sidecar) {
				item := &secretsidecarv1.ResolveRequest{Path: asked.GetPath(), ProjectId: asked.GetProjectId()}
				_, _ = running.BatchResolve(t.Context(), &secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{item, item}})
			},
			want: `msg="a caller is refused" method=BatchResolve reason=PROJECT_NOT_ALLOWED`,
		},
		{
			name:   "more than its limit",
			limits: server.CallerLimits{PerSecond: 1},
			ask: func(t *testing.T, running *sidecar) {
				batch := batchOf(256, "nonsense") // as many as may come at once
				_, _ = running.BatchResolve(t.Context(), batch)
				_, _ = running.BatchResolve(t.Context(), batch)
			},
			want: `msg="a caller asks for more than its limit" method=BatchResolve reason=RATE_LIMITED`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer // written by one request at a time, each of which is over
			s, err := server.New(server.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
			if err != nil {
				t.Fatal(err)
			}
			settings := server.Settings{Connections: []server.Connection{v.connection("prod")}, Callers: test.rules, CallerLimits: test.limits}
			if err := s.Apply(settings); err != nil {
				t.Fatal(err)
			}
			test.ask(t, serve(t, s))
			who := fmt.Sprintf(" uid=%d gid=%d pid=%d\n", os.Getuid(), os.Getgid(), os.Getpid())
			if text := log.String(); strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, test.want+who) {
				t.Errorf("the log says\n%s, want one line that ends with\n%s", text, test.want+who)
			}
		})
	}
}
