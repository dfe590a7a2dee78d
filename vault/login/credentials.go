package login

import (
	"errors"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const doingCredentials = "read the credentials" // #nosec G101 -- a phrase

// pending is vault.ErrLoginPending with its own text, because there may well be a token.
type pending string

const (
	errUnreadable pending = "the credentials cannot be read"
	errMalformed  pending = "the credentials cannot be right, so Vault is not asked"
)

// Error implements error.
func (p pending) Error() string { return string(p) }

// Unwrap returns vault.ErrLoginPending.
func (pending) Unwrap() error { return vault.ErrLoginPending }

// loadCredentials reads what a login needs. Errors wrap vault.ErrLoginPending, and name the setting
// and the file.
func loadCredentials(role, secret Credential) (credentials, error) {
	roleID, err := load(role, "role_id")
	if err != nil {
		return credentials{}, err
	}
	secretID, err := load(secret, "secret_id")
	if err != nil {
		return credentials{}, err
	}
	return credentials{roleID: roleID, secretID: secretID}, nil
}

// load reads one credential, configured as setting or as setting_file. Having none is no error.
func load(c Credential, setting string) (redact.String, error) {
	if c.File != "" {
		setting += "_file"
	}
	text, err := c.Read(setting)
	if err == nil {
		return text, nil
	}
	call := &vault.CallError{Sentinel: errUnreadable, Doing: doingCredentials, Remedy: err.Error(), Cause: err}
	if errors.Is(err, ErrMalformed) {
		call.Sentinel = errMalformed
	}
	return redact.String{}, call
}

// CheckLiterals returns what is wrong with credentials that are not in files. A file may become
// right later; a literal cannot.
func CheckLiterals(role, secret Credential) error {
	for _, one := range []struct {
		setting string
		Credential
	}{{"role_id", role}, {"secret_id", secret}} {
		if one.File != "" {
			continue
		}
		if _, err := one.Read(one.setting); err != nil {
			return err
		}
	}
	return nil
}
