package login

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/smallfile"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const doingCredentials = "read the credentials" // #nosec G101 -- a phrase

// pending is vault.ErrLoginPending with its own text, because there may well be a token.
type pending string

const (
	errExpired    pending = "the credentials have expired, so Vault is not asked"
	errUnreadable pending = "the credentials cannot be read"
	errMalformed  pending = "the credentials cannot be right, so Vault is not asked"
)

// Error implements error.
func (p pending) Error() string { return string(p) }

// Unwrap returns vault.ErrLoginPending.
func (pending) Unwrap() error { return vault.ErrLoginPending }

// loadCredentials reads what a login needs. Errors wrap vault.ErrLoginPending, and name the setting
// and the file.
func loadCredentials(role Role, clientCertFile string) (credentials, error) {
	switch {
	case role.Method.TakesJWT():
		jwt, err := load(role.JWT, "auth.token", Credential.ReadJWT)
		return credentials{jwt: jwt}, err
	case role.Method == vault.MethodCert:
		return credentials{certificate: hashOf(clientCertFile)}, nil
	}
	roleID, err := load(role.RoleID, "role_id", Credential.Read)
	if err != nil {
		return credentials{}, err
	}
	secretID, err := load(role.SecretID, "secret_id", Credential.Read)
	if err != nil {
		return credentials{}, err
	}
	return credentials{roleID: roleID, secretID: secretID}, nil
}

// hashOf tells one content of the file from another. The vault.Client says what is wrong with the
// file.
func hashOf(file string) redact.String {
	if file == "" {
		return redact.String{}
	}
	content, _ := smallfile.Read(file, vault.MaxCertificateBytes)
	return redact.New(fmt.Sprintf("%x", sha256.Sum256(content)))
}

// load reads one credential, configured as setting or as setting_file. Having none is no error.
func load(c Credential, setting string,
	read func(Credential, string) (redact.String, error)) (redact.String, error) {
	if c.File != "" {
		setting += "_file"
	}
	text, err := read(c, setting)
	if err == nil {
		return text, nil
	}
	call := &vault.CallError{Sentinel: errUnreadable, Doing: doingCredentials, Remedy: err.Error(), Cause: err}
	switch {
	case errors.Is(err, ErrExpired):
		call.Sentinel = errExpired
	case errors.Is(err, ErrMalformed):
		call.Sentinel = errMalformed
	}
	return redact.String{}, call
}

// Check returns what a role lacks, and what is wrong with credentials that are not in files. A file
// may become right later; a literal cannot. The client certificate of the method cert is for the
// vault.Client to check.
func (r Role) Check() error {
	switch {
	case r.isOwn() && r.RoleName == "":
		return errors.New("auth.role: name the role to log in as")
	case r.Method.TakesJWT() && r.JWT.IsZero():
		return errors.New("auth.token_file: name the file that holds the token")
	case r.Method.TakesJWT() && r.JWT.File == "":
		_, err := r.JWT.ReadJWT("jwt")
		return err
	case r.isOwn():
		return nil
	case r.RoleID.IsZero():
		return errors.New("role_id: give a role_id, or a file that holds it")
	}
	return checkLiterals(r.RoleID, r.SecretID)
}

// checkLiterals returns what is wrong with credentials that are not in files.
func checkLiterals(role, secret Credential) error {
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
