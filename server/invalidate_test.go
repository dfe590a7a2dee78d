package server_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

func TestInvalidateDropsWhatItsPathCovers(t *testing.T) {
	v := newVault(t)
	secrets := []string{"secret/data/a", "secret/data/a/b", "secret/data/ab", "secret/data/c"}
	for _, path := range secrets {
		v.write(t, path, map[string]any{"k": "v"})
		v.write(t, path, map[string]any{"k": "w"})
	}
	for _, test := range []struct {
		name, path string
		dropped    []string
	}{
		{"a reference drops its secret", "secret/data/a/k", []string{"secret/data/a"}},
		{"whatever its key", "secret/data/a/other", []string{"secret/data/a"}},
		{"a prefix drops what has references below it", "secret/data/a/", []string{"secret/data/a", "secret/data/a/b"}},
		{"a mount's prefix drops the mount", "secret/", secrets},
		{"another mount's prefix drops nothing", "other/", nil},
		{"no path drops all", "", secrets},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
			for _, path := range secrets {
				s.resolve(t, path+"/k")
				if _, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: path + "/k", Version: 1}); err != nil {
					t.Fatal(err)
				}
			}
			answer, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Path: test.path})
			if err != nil {
				t.Fatal(err)
			}
			if int(answer.GetEntries()) != len(test.dropped) {
				t.Errorf("dropped %d, want %d", answer.GetEntries(), len(test.dropped))
			}
			for _, path := range secrets {
				for _, version := range []uint32{0, 1} {
					got, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: path + "/k", Version: version})
					if err != nil {
						t.Fatal(err)
					}
					if dropped := got.GetSource() == secretsidecarv1.Source_SOURCE_VAULT; dropped != slices.Contains(test.dropped, path) {
						t.Errorf("%s version %d: dropped is %v", path, version, dropped)
					}
				}
			}
		})
	}
}

func TestInvalidateRefusesWhatItCannotDo(t *testing.T) {
	v := newVault(t)
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	for _, test := range []struct {
		name    string
		request *secretsidecarv1.InvalidateRequest
		code    codes.Code
		reason  string
	}{
		{"an unknown connection", &secretsidecarv1.InvalidateRequest{Connection: "none"}, codes.NotFound, "CONNECTION_NOT_FOUND"},
		{"neither reference nor prefix", &secretsidecarv1.InvalidateRequest{Path: "secret/data/a"}, codes.InvalidArgument, "INVALID_PATH"},
		{"traversal in a prefix", &secretsidecarv1.InvalidateRequest{Path: "secret/../"}, codes.InvalidArgument, "INVALID_PATH"},
		{"the fleet", &secretsidecarv1.InvalidateRequest{Fleet: true}, codes.InvalidArgument, "INVALID_REQUEST"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := s.Invalidate(t.Context(), test.request)
			wantProblem(t, err, test.code, test.reason)
		})
	}
}

func TestInvalidateCanRenewTheLogin(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "v"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	s.resolve(t, "secret/data/a/k")
	answer, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{RenewLogin: true})
	if err != nil || answer.GetEntries() != 1 {
		t.Fatalf("got %v %v", answer, err)
	}
	if logins := v.count("PUT /v1/auth/approle/login") + v.count("POST /v1/auth/approle/login"); logins != 2 {
		t.Errorf("%d logins, want 2", logins)
	}
	s.resolve(t, "secret/data/a/k")
}

func TestAFailedRenewalNamesItsConnection(t *testing.T) {
	v := newVault(t)
	bad := v.connection("bad")
	bad.Vault.SecretID = login.Credential{Value: redact.New("wrong")}
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod"), bad}})
	_, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{RenewLogin: true})
	wantProblem(t, err, codes.FailedPrecondition, "LOGIN_REJECTED")
	if message := status.Convert(err).Message(); !strings.Contains(message, `"bad"`) {
		t.Errorf("the message names no connection: %s", message)
	}
}
