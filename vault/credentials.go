package vault

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// maxCredentialBytes bounds what is read from a credential file; real ones have some 100 bytes.
const maxCredentialBytes = 64 << 10

const doingCredentials = "read the credentials" // #nosec G101 -- a phrase

// pendingBecause is ErrLoginPending with a headline of its own: there may well be a token.
type pendingBecause string

const (
	errUnreadable pendingBecause = "the credentials file cannot be read"
	errEmpty      pendingBecause = "the credentials file is empty"
)

func (p pendingBecause) Error() string { return string(p) }

// Unwrap returns ErrLoginPending.
func (p pendingBecause) Unwrap() error { return ErrLoginPending }

// Credential is a role_id or secret_id: a literal, or a watched file. The zero value is no credential; a File
// wins over a Value.
type Credential struct {
	Value redact.String
	// File is the path of a file with the credential; space and newlines around it are trimmed.
	File string
}

// IsZero reports whether there is no credential.
func (c Credential) IsZero() bool { return c.File == "" && c.Value.IsEmpty() }

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
	roleID, err := s.roleID.load("role_id_file")
	if err != nil {
		return credentials{}, err
	}
	secretID, err := s.secretID.load("secret_id_file")
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

func (c Credential) load(setting string) (redact.String, error) {
	if c.File == "" {
		return c.Value, nil
	}
	text, err := readSmallFile(c.File)
	if err != nil {
		return redact.String{}, &CallError{Sentinel: errUnreadable, Doing: doingCredentials, Cause: err,
			Remedy: setting + " " + c.File + " cannot be read: create it and make it readable"}
	}
	value := strings.TrimSpace(text)
	if value == "" {
		return redact.String{}, &CallError{Sentinel: errEmpty, Doing: doingCredentials,
			Remedy: setting + " " + c.File + " is empty: write the credential into it"}
	}
	return redact.New(value), nil
}

func readSmallFile(name string) (string, error) {
	// Opening a pipe does not wait for somebody to write to it.
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxCredentialBytes+1))
	if err == nil && len(text) > maxCredentialBytes {
		return "", errors.New("the file is too large for a credential")
	}
	return string(text), err
}
