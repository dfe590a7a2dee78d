package client_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/secret-sidecar/secret-sidecar/client"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// watched is a sidecar whose streams send what they are told to, and end when told nil.
type watched struct {
	secretsidecarv1.UnimplementedSecretServiceServer
	states chan *secretsidecarv1.WatchResponse
}

func (w *watched) Watch(_ *secretsidecarv1.WatchRequest, stream secretsidecarv1.SecretService_WatchServer) error {
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case state := <-w.states:
			if state == nil {
				return status.Error(codes.Unavailable, "the sidecar restarts")
			}
			if err := stream.Send(state); err != nil {
				return err
			}
		}
	}
}

func openWatched(t *testing.T) (*client.Client, *watched) {
	t.Helper()
	w := &watched{states: make(chan *secretsidecarv1.WatchResponse, 8)}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	secretsidecarv1.RegisterSecretServiceServer(server, w)
	go func() { _ = server.Serve(listener) }() // until Stop
	conn, err := grpc.NewClient("passthrough:///watched",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop() })
	c, err := client.Open(t.Context(), client.Conn(conn))
	if err != nil {
		t.Fatal(err)
	}
	return c, w
}

func stateOf(index uint32, value string) *secretsidecarv1.WatchResponse {
	return &secretsidecarv1.WatchResponse{
		Index: index, Outcome: &secretsidecarv1.WatchResponse_Secret{Secret: &secretsidecarv1.ResolveResponse{Value: value}},
	}
}

func TestAWatchYieldsEachStateAndGoesOnWhenTheSidecarRestarts(t *testing.T) {
	c, w := openWatched(t)
	w.states <- stateOf(0, "one")
	w.states <- &secretsidecarv1.WatchResponse{Index: 1, Outcome: &secretsidecarv1.WatchResponse_Error{
		Error: &secretsidecarv1.ResolveError{Code: int32(codes.NotFound), Reason: "SECRET_NOT_FOUND"},
	}}
	w.states <- nil
	w.states <- stateOf(0, "two")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const other = "secret/data/other/key"
	var seen []string
	for change := range c.Watch(ctx, []string{reference, other}) {
		if change.Err != nil {
			seen = append(seen, change.Reference+" "+change.Err.Reason)
			continue
		}
		seen = append(seen, change.Reference+" "+change.Secret.Value())
		if change.Secret.Value() == "two" {
			break
		}
	}
	want := []string{reference + " one", other + " SECRET_NOT_FOUND", reference + " two"}
	if len(seen) != 3 || seen[0] != want[0] || seen[1] != want[1] || seen[2] != want[2] {
		t.Errorf("got %q, want %q", seen, want)
	}
}

func TestAWatchOfNothingFailsAsAWhole(t *testing.T) {
	c, _ := openWatched(t)
	changes := 0
	for change := range c.Watch(t.Context(), nil) {
		changes++
		if change.Err == nil || change.Err.Reason != "INVALID_REQUEST" || change.Reference != "" {
			t.Errorf("got %+v", change)
		}
	}
	if changes != 1 {
		t.Errorf("%d changes, want 1", changes)
	}
}
