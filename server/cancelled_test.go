package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// hangingReads is a sidecar whose Vault takes reads and answers none before the test ends; began
// gets one value for each.
func hangingReads(t *testing.T, settings func(*frontedVault) server.Settings) (s *sidecar, began chan struct{}) {
	t.Helper()
	v := newVault(t)
	s = start(t, settings(v))
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	began = make(chan struct{}, 1000)
	v.answerInstead(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1/secret/") {
			began <- struct{}{}
			waitFor(t, release)
		}
		return false
	})
	return s, began
}

func oneConnection(v *frontedVault) server.Settings {
	return server.Settings{Connections: []server.Connection{v.connection("prod")}}
}

// wantCounts waits until ListConnections counts what is wanted.
func (s *sidecar) wantCounts(t *testing.T, want string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		answer, err := s.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(answer.GetConnections()[0].GetResolves())
		if got = string(text); got == want {
			return
		}
	}
	t.Errorf("ListConnections counts %s, want %s", got, want)
}

func TestARequestThatTheClientGaveUpIsNoFailure(t *testing.T) {
	for name, ask := range map[string]func(context.Context, *sidecar) error{
		"Resolve": func(ctx context.Context, s *sidecar) error {
			_, err := s.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k"})
			return err
		},
		"BatchResolve": func(ctx context.Context, s *sidecar) error {
			_, err := s.BatchResolve(ctx, batchOf(1, "secret/data/mysec/k"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, began := hangingReads(t, oneConnection)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { <-began; cancel() }()
			if code := codeOf(ask(ctx, s)); code != codes.Canceled {
				t.Errorf("got %v", code)
			}
			s.wantCounts(t, `{"cancelled":1}`)
		})
	}
}

func TestARequestWhoseDeadlinePassedIsAFailure(t *testing.T) {
	s, _ := hangingReads(t, oneConnection)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k"}); err == nil {
		t.Error("a read that hangs is answered")
	}
	s.wantCounts(t, `{"errors":1}`)
}
