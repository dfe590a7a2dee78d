package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

func TestTheTableShowsEveryState(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	connections := []*secretsidecarv1.ConnectionStatus{
		{
			Name: "a", Scope: secretsidecarv1.Scope_SCOPE_PLATFORM, Address: "http://v",
			CachedSecrets:  3,
			State:          secretsidecarv1.ConnectionState_CONNECTION_STATE_READY,
			TokenExpiresAt: ago(-90 * time.Minute),
			StateSince:     ago(53 * time.Hour),
			Resolves: &secretsidecarv1.ResolveCounts{Vault: 1, Cache: 994, Stale: 2,
				Negative: 2, Errors: 1},
		},
		{
			Name: "b", Scope: secretsidecarv1.Scope_SCOPE_PROJECT,
			ProjectIds: []string{"p", "q", "r", "s"}, Address: "http://v", Namespace: "n",
			State:      secretsidecarv1.ConnectionState_CONNECTION_STATE_READY,
			StateSince: ago(250 * time.Second),
		},
		{
			Name: "c", Scope: secretsidecarv1.Scope_SCOPE_PLATFORM, Address: "http://v",
			State:      secretsidecarv1.ConnectionState_CONNECTION_STATE_REJECTED,
			StateSince: ago(7 * time.Second),
			LastError: &secretsidecarv1.ResolveError{Reason: "LOGIN_REJECTED",
				Message: "Vault rejected the login: issue a new secret_id"},
		},
		{
			Name: "d", Scope: secretsidecarv1.Scope_SCOPE_PLATFORM, Address: "http://v",
			State:          secretsidecarv1.ConnectionState_CONNECTION_STATE_DEGRADED,
			TokenExpiresAt: ago(time.Hour), StateSince: ago(-time.Second),
		},
	}
	want := `
NAME  STATE     SINCE  TOKEN-LEFT  CACHED  HITS   STALE  FAILED  SCOPE           ADDRESS
a     READY     2d5h   1h30m       3       99.6%  2      3       platform        http://v
b     READY     4m10s  unlimited   0       -      0      0       project:p,q,+2  http://v namespace n
c     REJECTED  7s     -           0       -      0      0       platform        http://v
  LOGIN_REJECTED: Vault rejected the login: issue a new secret_id
d     DEGRADED  0s     0s          0       -      0      0       platform        http://v
`
	var table strings.Builder
	if err := printConnections(&table, connections, now); err != nil {
		t.Fatal(err)
	}
	if got := "\n" + table.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// watched ends a watch once it has printed a part so many times.
type watched struct {
	mu    sync.Mutex
	text  bytes.Buffer // guarded by mu
	part  string
	times int
	end   context.CancelFunc
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if strings.Count(w.text.String(), w.part) >= w.times {
		w.end()
	}
	return len(p), nil
}

func TestAWatchGoesOnUntilItIsInterruptedWhetherOrNotTheSidecarIsThere(t *testing.T) {
	tests := []struct {
		name, part string
		args       []string
	}{
		{name: "no sidecar", part: "no sidecar answers at", args: []string{"--socket", "/nonexistent/s.sock"}},
		{name: "no sidecar, as JSON", part: "no sidecar answers at", args: []string{"--socket", "/nonexistent/s.sock", "--output", "json"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			out := &watched{part: test.part, times: 3, end: cancel}
			args := append([]string{"connections", "list", "--watch", "--interval", "100ms"},
				test.args...)
			if code := run(ctx, args, streams{out: out, err: out}, func(string) (string, bool) {
				return "", false
			}); code != exitDone {
				t.Errorf("exit code %d\n%s", code, out.text.String())
			}
		})
	}
}

func TestALookOfAWatchIsATableOrALineOfJSON(t *testing.T) {
	answer := &secretsidecarv1.ListConnectionsResponse{Connections: []*secretsidecarv1.ConnectionStatus{{Name: "prod"}}}
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		list := connectionList{app: &app{streams: streams{out: &out}, socket: "/s"}, json: asJSON}
		for range 2 {
			if err := list.refresh(answer, nil, now); err != nil {
				t.Fatal(err)
			}
		}
		text := out.String()
		if !asJSON && strings.Count(text,
			"2030-01-02 03:04:05  secret-sidecar at /s\n\nNAME") != 2 {
			t.Errorf("printed %q", text)
		}
		if !asJSON {
			continue
		}
		for line := range strings.Lines(text) {
			if !json.Valid([]byte(line)) || !strings.Contains(line, `"name":"prod"`) {
				t.Errorf("no JSON: %q", line)
			}
		}
	}
}

func TestAWatchIntervalThatWouldBeALoadIsRefused(t *testing.T) {
	var out bytes.Buffer
	code := run(t.Context(), []string{"connections", "list", "--watch", "--interval", "1ms"},
		streams{out: &out, err: &out}, func(string) (string, bool) {
			return "", false
		})
	if code != exitUsage || !strings.Contains(out.String(), "--interval") {
		t.Errorf("exit code %d, %s", code, out.String())
	}
}
