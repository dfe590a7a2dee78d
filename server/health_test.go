package server_test

import (
	"maps"
	"os"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/secret-sidecar/secret-sidecar/server"
)

func ownUID() *uint32 {
	uid := uint32(os.Getuid()) // #nosec G115 -- a uid
	return &uid
}

func TestHealthNamesConnectionsToThoseAloneWhoMayUseThem(t *testing.T) {
	v := newVault(t)
	plain := []string{"", "liveness", "secretsidecar.v1.SecretService"}
	for name, test := range map[string]struct {
		rules []server.CallerRule
		knows []string
		other codes.Code // for a connection that is not there
	}{
		"no rules":               {nil, []string{"a", "b"}, codes.NotFound},
		"a rule about both":      {[]server.CallerRule{{UID: ownUID()}}, []string{"a", "b"}, codes.NotFound},
		"a rule about one":       {[]server.CallerRule{{UID: ownUID(), Connections: []string{"a"}}}, []string{"a"}, codes.PermissionDenied},
		"rules about others":     {[]server.CallerRule{{UID: new(uint32(4711))}}, nil, codes.PermissionDenied},
		"rules that list nobody": {[]server.CallerRule{}, nil, codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			running := start(t, server.Settings{
				Connections: []server.Connection{v.connection("a"), v.connection("b")}, Callers: test.rules,
			})
			health := healthpb.NewHealthClient(running.conn)
			want := slices.Clone(plain)
			for _, connection := range test.knows {
				want = append(want, "connection/"+connection)
			}
			listed, err := health.List(t.Context(), &healthpb.HealthListRequest{})
			if got := slices.Sorted(maps.Keys(listed.GetStatuses())); err != nil || !slices.Equal(got, slices.Sorted(slices.Values(want))) {
				t.Errorf("List names %q, want %q (%v)", got, want, err)
			}
			for _, service := range want {
				if _, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service}); err != nil {
					t.Errorf("Check %q: %v", service, err)
				}
			}
			for _, connection := range []string{"a", "b", "absent"} {
				if slices.Contains(test.knows, connection) {
					continue
				}
				service := &healthpb.HealthCheckRequest{Service: "connection/" + connection}
				if _, err := health.Check(t.Context(), service); status.Code(err) != test.other {
					t.Errorf("Check of %s: %v, want %v", connection, err, test.other)
				}
				if test.other == codes.NotFound {
					continue // to watch what is not there yet is fine
				}
				watch, err := health.Watch(t.Context(), service)
				if err == nil {
					_, err = watch.Recv()
				}
				if status.Code(err) != test.other {
					t.Errorf("Watch of %s: %v, want %v", connection, err, test.other)
				}
			}
		})
	}
}

func TestAWatchEndsWhenAReloadTakesTheConnectionFromTheCaller(t *testing.T) {
	v := newVault(t)
	settings := server.Settings{Connections: []server.Connection{v.connection("a")}}
	running := start(t, settings)
	watch, err := healthpb.NewHealthClient(running.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "connection/a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	settings.Callers = []server.CallerRule{{UID: new(uint32(4711))}}
	if err := running.server.Apply(settings); err != nil {
		t.Fatal(err)
	}
	for err == nil { // a login may be told before
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("the watch ends with %v", err)
	}
}
