package login

import (
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const doingCredentials = "read the credentials" // #nosec G101 -- a phrase

// loadCredentials reads what a login takes. Errors wrap vault.ErrLoginPending, and name the setting and the file.
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

// load reads a credential; none is no error.
func load(c Credential, setting string) (redact.String, error) {
	if c.IsZero() {
		return redact.String{}, nil
	}
	text, err := c.Read(setting)
	if err != nil {
		return redact.String{}, &vault.CallError{Sentinel: pending{err}, Doing: doingCredentials, Cause: err, Remedy: err.Error()}
	}
	return text, nil
}

// pending is vault.ErrLoginPending with a headline of its own: there may well be a token.
type pending struct{ cause error }

// Error implements error.
func (pending) Error() string { return "the credentials cannot be used" }

// Unwrap returns vault.ErrLoginPending and the cause.
func (p pending) Unwrap() []error { return []error{vault.ErrLoginPending, p.cause} }
