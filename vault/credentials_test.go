package vault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

func TestAnUnusableCredentialsFileIsTheHeadline(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "secret_id")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		empty:              "read the credentials: the credentials file is empty",
		empty + ".missing": "read the credentials: the credentials file cannot be read",
	} {
		_, err := credentialSource{roleID: Credential{Value: redact.New("role")}, secretID: Credential{File: file}}.load()
		wantErr(t, err, ErrLoginPending)
		if err.Error() != want || !strings.Contains(remedy(err), "secret_id_file "+file) {
			t.Errorf("error %q, remedy %q, want %q", err, remedy(err), want)
		}
	}
}
