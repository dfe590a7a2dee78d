package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

func TestTheTableShowsEveryState(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	connections := []*secretsidecarv1.ConnectionStatus{
		{
			Name: "a", Scope: secretsidecarv1.Scope_SCOPE_PLATFORM, Address: "http://v", CachedSecrets: 3,
			State: secretsidecarv1.ConnectionState_CONNECTION_STATE_READY, TokenExpiresAt: timestamppb.New(now.Add(90 * time.Minute)),
		},
		{
			Name: "b", Scope: secretsidecarv1.Scope_SCOPE_PROJECT, ProjectIds: []string{"p", "q"}, Address: "http://v", Namespace: "n",
			State: secretsidecarv1.ConnectionState_CONNECTION_STATE_READY,
		},
		{
			Name: "c", Scope: secretsidecarv1.Scope_SCOPE_PLATFORM, Address: "http://v",
			State:     secretsidecarv1.ConnectionState_CONNECTION_STATE_REJECTED,
			LastError: &secretsidecarv1.ResolveError{Reason: "LOGIN_REJECTED", Message: "issue a new secret_id"},
		},
		{
			Name: "d", Scope: secretsidecarv1.Scope_SCOPE_PLATFORM, Address: "http://v",
			State: secretsidecarv1.ConnectionState_CONNECTION_STATE_DEGRADED, TokenExpiresAt: timestamppb.New(now.Add(-time.Hour)),
		},
	}
	want := `
NAME  STATE     SCOPE        ADDRESS               TOKEN-LEFT  CACHED  LAST-ERROR
a     READY     platform     http://v              1h30m0s     3       -
b     READY     project:p,q  http://v namespace n  unlimited   0       -
c     REJECTED  platform     http://v              -           0       LOGIN_REJECTED: issue a new secret_id
d     DEGRADED  platform     http://v              0s          0       -
`
	var table strings.Builder
	if err := printConnections(&table, connections, now); err != nil {
		t.Fatal(err)
	}
	if got := "\n" + table.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
