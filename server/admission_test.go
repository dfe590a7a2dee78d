package server_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

var someoneElse = []server.CallerRule{{UID: new(uint32(4711))}}

func TestACallerThatNoRuleListsIsRefusedWhateverItAsksButForHealth(t *testing.T) {
	v := newVault(t)
	var log bytes.Buffer // written by one request at a time, each of which is over
	s, err := server.New(server.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(server.Settings{Connections: []server.Connection{v.connection("prod")}, Callers: someoneElse}); err != nil {
		t.Fatal(err)
	}
	running := serve(t, s)
	long := strings.Repeat("x", 900<<10) // is not even read
	for name, ask := range map[string]func() error{
		"Resolve": func() error {
			_, err := running.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "no reference " + long})
			return err
		},
		"BatchResolve of nothing": func() error {
			_, err := running.BatchResolve(t.Context(), &secretsidecarv1.BatchResolveRequest{})
			return err
		},
		"Invalidate with a bad path": func() error {
			_, err := running.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Path: "/" + long})
			return err
		},
		"TestConnection of nothing": func() error {
			_, err := running.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{})
			return err
		},
		"ListConnections": func() error {
			_, err := running.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
			return err
		},
		"a service that is not there": func() error {
			return running.conn.Invoke(t.Context(), "/their.Service/TheirWord", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{})
		},
		"reflection": func() error {
			stream, err := reflectionpb.NewServerReflectionClient(running.conn).ServerReflectionInfo(t.Context())
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { wantProblem(t, ask(), codes.PermissionDenied, "CALLER_NOT_ALLOWED") })
	}
	if strings.Contains(log.String(), "TheirWord") {
		t.Errorf("the log repeats what the caller said:\n%s", log.String())
	}
	if _, err := healthpb.NewHealthClient(running.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "liveness"}); err != nil {
		t.Errorf("health: %v", err)
	}
}

func TestAReloadThatListsACallerReachesItsOpenChannel(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/app", map[string]any{"key": "value"})
	settings := server.Settings{Connections: []server.Connection{v.connection("prod")}, Callers: someoneElse}
	running := start(t, settings)
	ask := func() error {
		_, err := running.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/app/key"}, grpc.WaitForReady(true))
		return err
	}
	wantProblem(t, ask(), codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	settings.Callers = nil
	if err := running.server.Apply(settings); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the caller is answered", func() bool { return ask() == nil })
	settings.Callers = someoneElse
	if err := running.server.Apply(settings); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, ask(), codes.PermissionDenied, "CALLER_NOT_ALLOWED")
}

func TestAConnectionOverTheLimitOfItsUserIsToldSo(t *testing.T) {
	running := start(t, server.Settings{Callers: someoneElse})
	refused := 0
	for range 6 {
		channel, err := grpc.NewClient("unix:"+running.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = channel.Close() })
		_, err = healthpb.NewHealthClient(channel).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "liveness"})
		if err == nil {
			continue
		}
		refused++
		wantProblem(t, err, codes.ResourceExhausted, "RATE_LIMITED")
		_, err = secretsidecarv1.NewSecretServiceClient(channel).ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
		wantProblem(t, err, codes.ResourceExhausted, "RATE_LIMITED")
		channel.WaitForStateChange(t.Context(), connectivity.Ready) // it is closed soon
	}
	if refused != 2 {
		t.Errorf("%d of 6 connections are refused, want those over 4", refused)
	}
}

func TestHealthWatchesOfOneConnectionAreBounded(t *testing.T) {
	running := start(t, server.Settings{})
	watching := 0
	for range 40 {
		watch, err := healthpb.NewHealthClient(running.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		if err == nil {
			watching++
			continue
		}
		wantProblem(t, err, codes.ResourceExhausted, "RATE_LIMITED")
	}
	if watching != 16 {
		t.Errorf("%d watches of one connection", watching)
	}
	if _, err := running.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{}); status.Code(err) != codes.OK {
		t.Errorf("a request beside them: %v", err)
	}
}

func TestACallerIsJudgedBeforeItsRequestIsRead(t *testing.T) {
	v := newVault(t)
	running := start(t, server.Settings{
		Connections: []server.Connection{v.connection("prod")},
		Callers:     []server.CallerRule{{UID: ownUID(), Methods: []string{"ListConnections"}}},
	})
	for name, ask := range map[string]func() error{
		"a reference that is none": func() error {
			_, err := running.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "none"})
			return err
		},
		"a batch of nothing": func() error {
			_, err := running.BatchResolve(t.Context(), &secretsidecarv1.BatchResolveRequest{})
			return err
		},
		"a batch of nonsense": func() error {
			_, err := running.BatchResolve(t.Context(), batchOf(256, "\x01"))
			return err
		},
		"a prefix that is none": func() error {
			_, err := running.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Path: "../"})
			return err
		},
		"a test of nothing": func() error {
			_, err := running.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{Path: "none"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { wantProblem(t, ask(), codes.PermissionDenied, "CALLER_NOT_ALLOWED") })
	}
	if _, err := running.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{}); err != nil {
		t.Errorf("what it may call: %v", err)
	}
}
