package e2e_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// TestTheMigrationPageMapsAConnectionForm fills two forms of a platform in as docs/migration.md
// says, and asks as its flows would.
func TestTheMigrationPageMapsAConnectionForm(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSandbox(t)
		secret := vaulttest.Unique("migration")
		value := s.newSecret()
		s.writeSecret(v, "secret/data/"+secret, "api_key", value)
		l := s.defaultLogin(v)
		roleID := s.write("role_id", l.roleID)
		r := s.start("--config", s.config(
			l.connection("prod", v.Address, "role_id_file: "+roleID),
			l.connection("payments", v.Address, "scope: project", "project_ids: [p1, p2]"),
		))
		for name, test := range map[string]struct {
			connection, project string
			want                failure
		}{
			"platform, without a project":  {connection: "prod"},
			"platform, with any project":   {connection: "prod", project: "p9"},
			"project, with one of its own": {connection: "payments", project: "p2"},
			"project, without one": {connection: "payments",
				want: failure{codes.PermissionDenied, "PROJECT_REQUIRED"}},
			"project, with another": {connection: "payments", project: "p9",
				want: failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
			"no connection of two": {want: failure{codes.InvalidArgument, "CONNECTION_REQUIRED"}},
		} {
			t.Run(name, func(t *testing.T) {
				answer, err := r.Resolve(t.Context(),
					&secretsidecarv1.ResolveRequest{Connection: test.connection,
						ProjectId: test.project,
						Path:      "secret/data/" + secret + "/api_key"})
				if test.want.reason != "" {
					requireFailure(t, s.in(t), err, test.want)
					return
				}
				if err != nil || answer.GetValue() != value {
					t.Errorf("%v, %v", answer, err)
				}
			})
		}
	})
}

// TestTheSidecarGivesWhatVaultHoldsForEveryReference compares each value with what Vault itself
// says, as the page's step of comparing does.
func TestTheSidecarGivesWhatVaultHoldsForEveryReference(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSetup(t, v)
		held := map[string]any{
			"text": s.newSecret(), "empty": "", "zero": json.Number("0"), "large": json.Number("12345678901234567890"), "truth": true,
			"nothing": nil, "list": []any{"a", json.Number("1.50")}, "name with space": s.newSecret(),
		}
		directory := "secret/data/" + vaulttest.Unique("migration") + "/team a/data"
		v.WriteSecret(t, directory, held)
		batch := &secretsidecarv1.BatchResolveRequest{}
		keys := slices.Sorted(maps.Keys(held))
		for _, key := range keys {
			batch.Requests = append(batch.Requests,
				&secretsidecarv1.ResolveRequest{Path: directory + "/" + key})
		}
		answer, err := s.BatchResolve(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		itself := inVault(t, v, directory)
		for i, key := range keys {
			got := answer.GetResults()[i].GetSecret()
			want, kind := asTheSidecarSaysIt(t, itself[key])
			if got == nil || got.GetValue() != want || got.GetValueType() != kind {
				t.Errorf("%s is %v, want %s %q", key, answer.GetResults()[i], kind, want)
			}
		}
	})
}

// inVault reads a secret as a platform's own resolver does.
func inVault(t *testing.T, v *vaulttest.Vault, path string) map[string]any {
	t.Helper()
	answer := v.Call(t, v.RootToken, http.MethodGet, vaulttest.EscapePath(path), nil, nil)
	data, _ := answer.Body["data"].(map[string]any)
	held, _ := data["data"].(map[string]any)
	if len(held) == 0 {
		t.Fatalf("%s: %d", path, answer.Status)
	}
	return held
}

func asTheSidecarSaysIt(t *testing.T, value any) (string, secretsidecarv1.ValueType) {
	t.Helper()
	if text, ok := value.(string); ok {
		return text, secretsidecarv1.ValueType_VALUE_TYPE_STRING
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text)), secretsidecarv1.ValueType_VALUE_TYPE_JSON
}
