package login

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

func TestAFileThatCannotBeUsedIsTheHeadline(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret_id")
	for content, want := range map[string]struct{ headline, remedy string }{
		"":             {"read the credentials: the credentials cannot be read", "secret_id_file " + file + " cannot be read: no such file"},
		"\n":           {"read the credentials: the credentials cannot be read", "secret_id_file " + file + " is empty: "},
		"hush\nhush\n": {"read the credentials: the credentials cannot be right, so Vault is not asked", "secret_id_file " + file + " holds several lines: "},
	} {
		_ = os.Remove(file)
		if content != "" {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := loadCredentials(Role{RoleID: Credential{Value: redact.New("role")}, SecretID: Credential{File: file}}, "")
		if !errors.Is(err, vault.ErrLoginPending) || err.Error() != want.headline || !strings.HasPrefix(remedyOf(err), want.remedy) {
			t.Errorf("%q: error %q, remedy %q", content, err, remedyOf(err))
		}
	}
}
