package server_test

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

func TestCredentialsOfASpecThatCannotBeRightAreAMistakeAndVaultIsNotAsked(t *testing.T) {
	v := newVault(t)
	running := start(t, server.Settings{})
	for name, test := range map[string]struct{ roleID, secretID, want string }{
		"two lines":           {"role", "hush\nhush", "spec.secret_id: holds several lines: "},
		"a control character": {"hush\x01", "secret", "spec.role_id: holds a control character: "},
		"blank":               {"role", " \n", "spec.secret_id: is empty: "},
		"4097 bytes":          {strings.Repeat("x", 4097), "secret", "spec.role_id: holds more than 4096 bytes: "},
		"a path":              {"role", "/run/secrets/hush", "spec.secret_id: holds a path: send what the file holds"},
	} {
		spec := &secretsidecarv1.ConnectionSpec{Name: "n", Address: v.address, RoleId: test.roleID, SecretId: test.secretID}
		_, err := running.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{Target: &secretsidecarv1.TestConnectionRequest_Spec{Spec: spec}})
		wantProblem(t, err, codes.InvalidArgument, "INVALID_REQUEST")
		message := status.Convert(err).Message()
		violation := detail[*errdetails.BadRequest](status.Convert(err)).GetFieldViolations()[0]
		if !strings.HasPrefix(message, test.want) || strings.Contains(message, "hush") || !strings.HasPrefix(test.want, violation.GetField()+": ") {
			t.Errorf("%s: %s, field %s", name, message, violation.GetField())
		}
		if v.count("") != 0 {
			t.Errorf("%s: Vault was asked", name)
		}
	}
}

func TestBlankSpaceAroundTheCredentialsOfASpecDoesNotCount(t *testing.T) {
	v := newVault(t)
	running := start(t, server.Settings{})
	spec := &secretsidecarv1.ConnectionSpec{Name: "n", Address: v.address, RoleId: " " + v.roleID + "\n", SecretId: "\ufeff" + v.secretID + "\r\n"}
	report, err := running.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{Target: &secretsidecarv1.TestConnectionRequest_Spec{Spec: spec}})
	if err != nil || !report.GetOk() {
		t.Errorf("report %v, %v", report, err)
	}
}
