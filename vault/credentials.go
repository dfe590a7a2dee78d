package vault

import (
	"errors"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	vaultlogin "github.com/secret-sidecar/secret-sidecar/vault/login"
)

const doingCredentials = "read the credentials" // #nosec G101 -- a phrase

// pendingBecause is ErrLoginPending with a headline of its own: there may well be a token.
type pendingBecause string

const (
	errUnreadable pendingBecause = "the credentials cannot be read"
	errMalformed  pendingBecause = "the credentials cannot be right, so Vault is not asked"
)

func (p pendingBecause) Error() string { return string(p) }

// Unwrap returns ErrLoginPending.
func (p pendingBecause) Unwrap() error { return ErrLoginPending }

// Credential is a role_id or secret_id.
type Credential = vaultlogin.Credential

// credentials are what a login takes. They are compared by value. A wrapped secret_id stands here as its
// wrapping token.
type credentials struct {
	roleID, secretID redact.String
}

// credentialSource reads the credentials of one connection.
type credentialSource struct {
	roleID, secretID Credential
}

// load reads the files anew. Errors wrap ErrLoginPending and name the setting and the file.
func (s credentialSource) load() (credentials, error) {
	roleID, err := readCredential(s.roleID, "role_id")
	if err != nil {
		return credentials{}, err
	}
	secretID, err := readCredential(s.secretID, "secret_id")
	if err != nil {
		return credentials{}, err
	}
	return credentials{roleID: roleID, secretID: secretID}, nil
}

// files returns the files to watch.
func (s credentialSource) files() []string {
	var files []string
	for _, c := range []Credential{s.roleID, s.secretID} {
		if c.File != "" {
			files = append(files, c.File)
		}
	}
	return files
}

// readCredential reads one credential, which the configuration gives as setting or as setting_file.
func readCredential(c Credential, setting string) (redact.String, error) {
	if c.File != "" {
		setting += "_file"
	}
	value, err := c.Read(setting)
	if err == nil {
		return value, nil
	}
	call := &CallError{Sentinel: errUnreadable, Doing: doingCredentials, Remedy: err.Error(), Cause: err}
	if errors.Is(err, vaultlogin.ErrMalformed) {
		call.Sentinel = errMalformed
	}
	return redact.String{}, call
}

// checkLiterals refuses literals that cannot be right. Files may become right later.
func checkLiterals(cfg Config) error {
	for setting, c := range map[string]Credential{"role_id": cfg.RoleID, "secret_id": cfg.SecretID} {
		if c.File != "" {
			continue
		}
		if _, err := c.Read(setting); err != nil {
			return err
		}
	}
	return nil
}
