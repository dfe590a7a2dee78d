package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

const (
	passed  = secretsidecarv1.CheckStatus_CHECK_STATUS_PASSED
	failed  = secretsidecarv1.CheckStatus_CHECK_STATUS_FAILED
	skipped = secretsidecarv1.CheckStatus_CHECK_STATUS_SKIPPED
)

func TestAConnectionIsTestedStepByStepBeforeItIsConfigured(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSetup(t, v)
		s.writeSecret(v, "secret/data/app", "key", s.newSecret())
		l := s.newLogin(v, nil, readSecrets+` path "sys/mounts" { capabilities = ["read"] }`)
		notVault := httptest.NewServer(text(http.StatusOK, "<html>Welcome</html>"))
		t.Cleanup(notVault.Close)
		nobody := httptest.NewServer(nil)
		nobody.Close()

		good := &secretsidecarv1.ConnectionSpec{Name: "new", Address: v.Address, RoleId: l.roleID,
			SecretId: l.secretID}
		wrong := &secretsidecarv1.ConnectionSpec{Address: v.Address, RoleId: l.roleID,
			SecretId: s.newSecret()}
		at := func(address string) *secretsidecarv1.ConnectionSpec {
			return &secretsidecarv1.ConnectionSpec{Address: address, RoleId: l.roleID,
				SecretId: l.secretID}
		}
		for _, test := range []struct {
			name string
			spec *secretsidecarv1.ConnectionSpec
			path string
			want []secretsidecarv1.CheckStatus // reach, login, mounts, path
		}{
			{"all is well", good, "secret/data/app/key",
				[]secretsidecarv1.CheckStatus{passed, passed, passed, passed}},
			{"without a path", good, "", []secretsidecarv1.CheckStatus{passed, passed, passed, skipped}},
			{"an absent secret", good, "secret/data/absent/key",
				[]secretsidecarv1.CheckStatus{passed, passed, passed, failed}},
			{"an absent key", good, "secret/data/app/absent",
				[]secretsidecarv1.CheckStatus{passed, passed, passed, failed}},
			{"a wrong secret_id", wrong, "secret/data/app/key",
				[]secretsidecarv1.CheckStatus{passed, failed, skipped, skipped}},
			{"nothing listens", at(nobody.URL), "secret/data/app/key",
				[]secretsidecarv1.CheckStatus{failed, skipped, skipped, skipped}},
			{"not a Vault", at(notVault.URL), "secret/data/app/key",
				[]secretsidecarv1.CheckStatus{failed, skipped, skipped, skipped}},
		} {
			t.Run(test.name, func(t *testing.T) {
				report, err := s.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
					Target: &secretsidecarv1.TestConnectionRequest_Spec{Spec: test.spec},
					Path:   test.path,
				})
				if err != nil {
					t.Fatal(err)
				}
				s.record("the report of "+test.name, report.String())
				requireChecks(t, report, test.want)
			})
		}
		if tokens := v.RoleTokens(t, l.role); len(tokens) != 0 {
			t.Errorf("%d tokens of tests are left", len(tokens))
		}
	})
}

// requireChecks compares the outcomes of a report. A check that failed says what to do.
func requireChecks(t *testing.T, report *secretsidecarv1.TestConnectionResponse,
	want []secretsidecarv1.CheckStatus) {
	t.Helper()
	names := []string{"reach", "login", "mounts", "path"}
	if len(report.GetChecks()) != len(names) {
		t.Fatalf("the checks are %v", report.GetChecks())
	}
	ok := true
	for i, check := range report.GetChecks() {
		ok = ok && check.GetStatus() != failed
		if check.GetName() != names[i] || check.GetStatus() != want[i] {
			t.Errorf("check %d is %v, want %s %v", i, check, names[i], want[i])
		}
		if check.GetStatus() == failed && (check.GetMessage() == "" || check.GetRemedy() == "") {
			t.Errorf("check %v does not say what to do", check)
		}
	}
	if report.GetOk() != ok {
		t.Errorf("ok is %v", report.GetOk())
	}
}
