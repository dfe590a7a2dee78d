package login

import (
	"errors"
	"os"
	"strings"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// Credential is a placeholder until the real one is merged.
type Credential struct {
	Value redact.String
	File  string
}

// IsZero reports whether there is no credential.
func (c Credential) IsZero() bool { return c.File == "" && c.Value.IsEmpty() }

// Read reads it.
func (c Credential) Read(setting string) (redact.String, error) {
	if c.File == "" {
		return c.Value, nil
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		return redact.String{}, errors.New(setting + "_file " + c.File + " cannot be read: create it and make it readable")
	}
	if strings.TrimSpace(string(text)) == "" {
		return redact.String{}, errors.New(setting + "_file " + c.File + " is empty: write the credential into it")
	}
	return redact.New(strings.TrimSpace(string(text))), nil
}
