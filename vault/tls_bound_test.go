package vault_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/smallfile"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

func TestNoTLSFileIsReadWithoutABound(t *testing.T) {
	huge := filepath.Join(t.TempDir(), "huge")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 1<<40); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]vault.TLS{
		"ca_file": {CAFile: huge}, "the client's": {ClientCertFile: huge, ClientKeyFile: huge},
	} {
		if err := files.Check(); !errors.Is(err, smallfile.ErrTooLarge) {
			t.Errorf("%s of 1 TiB: %v", name, err)
		}
	}
}
