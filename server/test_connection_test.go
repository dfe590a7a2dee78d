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

// unsignedToken is a JWT in form, which the sidecar leaves to Vault to judge.
const unsignedToken = "e30.e30.aHVzaA" // #nosec G101 -- signed by nobody

func TestASpecOfAnOwnIdentityNamesWhatItLacksAndVaultIsNotAsked(t *testing.T) {
	v := newVault(t)
	running := start(t, server.Settings{})
	for name, test := range map[string]struct {
		spec *secretsidecarv1.ConnectionSpec
		want string
	}{
		"an unknown method": {&secretsidecarv1.ConnectionSpec{AuthMethod: "k8s"}, "spec.auth_method: is none of approle, kubernetes, jwt, cert"},
		"no role":           {&secretsidecarv1.ConnectionSpec{AuthMethod: "kubernetes", AuthToken: unsignedToken}, "spec.auth_role: is missing: "},
		"no token":          {&secretsidecarv1.ConnectionSpec{AuthMethod: "jwt", AuthRole: "r"}, "spec.auth_token: is missing: send the token itself"},
		"no JWT":            {&secretsidecarv1.ConnectionSpec{AuthMethod: "jwt", AuthRole: "r", AuthToken: "hush"}, "spec.auth_token: holds no JSON Web Token: "},
		"a token's path": {&secretsidecarv1.ConnectionSpec{AuthMethod: "kubernetes", AuthRole: "r", AuthToken: "/var/run/secrets/hush"},
			"spec.auth_token: holds a path: send what the file holds"},
		"AppRole's secret_id": {&secretsidecarv1.ConnectionSpec{AuthMethod: "jwt", AuthRole: "r", AuthToken: unsignedToken, SecretId: "hush"},
			"spec.secret_id: does not belong to auth_method jwt"},
		"a role beside a role_id": {&secretsidecarv1.ConnectionSpec{RoleId: "r", SecretId: "hush", AuthRole: "r"}, "spec.auth_role: belongs to another auth_method"},
		"a token for cert": {&secretsidecarv1.ConnectionSpec{AuthMethod: "cert", AuthRole: "r", AuthToken: unsignedToken},
			"spec.auth_token: does not belong to auth_method cert"},
		"no certificate": {&secretsidecarv1.ConnectionSpec{AuthMethod: "cert", AuthRole: "r"}, "spec.client_cert_pem: client_cert: give the client certificate"},
		"a broken certificate": {&secretsidecarv1.ConnectionSpec{AuthMethod: "cert", AuthRole: "r", ClientCertPem: "no pem", ClientKeyPem: "hush"},
			"spec.client_cert_pem: client_cert: the text is not a certificate and its key"},
	} {
		test.spec.Name, test.spec.Address = "n", v.address
		_, err := running.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{Target: &secretsidecarv1.TestConnectionRequest_Spec{Spec: test.spec}})
		wantProblem(t, err, codes.InvalidArgument, "INVALID_REQUEST")
		if message := status.Convert(err).Message(); !strings.HasPrefix(message, test.want) || strings.Contains(message, "hush") {
			t.Errorf("%s: %s, want %s", name, message, test.want)
		}
		if v.count("") != 0 {
			t.Errorf("%s: Vault was asked", name)
		}
	}
}
