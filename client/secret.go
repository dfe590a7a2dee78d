package client

import (
	"fmt"
	"log/slog"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// Source says where a value comes from.
type Source string

// The sources.
const (
	FromVault Source = "VAULT" // read from Vault for this call
	FromCache Source = "CACHE" // a copy that is still fresh
	Stale     Source = "STALE" // an older copy, because Vault is out
)

// Secret is one value. Printing, logging or encoding it shows everything but the value, inside
// other values too. It is immutable.
type Secret struct {
	value *string // behind a pointer: fmt prints unexported fields without asking for a method

	// IsJSON says that the value is JSON text, because the secret holds no string there.
	IsJSON bool
	// Version is the secret's version in Vault.
	Version uint32
	// CreatedAt is when this version was written.
	CreatedAt time.Time
	// FetchedAt is when the read of Vault began that brought the value.
	FetchedAt time.Time
	// ExpiresAt is when the sidecar's copy stops being fresh.
	ExpiresAt time.Time
	// Source is where the value comes from.
	Source Source
}

// Value returns the secret itself.
func (s *Secret) Value() string { return *s.value }

// String describes the secret without its value.
func (s *Secret) String() string {
	return fmt.Sprintf("[secret, version %d, from %s at %s]", s.Version, s.Source,
		s.FetchedAt.Format(time.RFC3339))
}

// Format implements fmt.Formatter: every verb prints what String returns.
func (s *Secret) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte(s.String())) }

// LogValue implements slog.LogValuer.
func (s *Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, which encoding/json uses too.
func (s *Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func secretOf(answer *secretsidecarv1.ResolveResponse) *Secret {
	value := answer.GetValue()
	return &Secret{
		value:     &value,
		IsJSON:    answer.GetValueType() == secretsidecarv1.ValueType_VALUE_TYPE_JSON,
		Version:   answer.GetVersion(),
		CreatedAt: answer.GetVersionCreatedAt().AsTime(),
		FetchedAt: answer.GetFetchedAt().AsTime(),
		ExpiresAt: answer.GetExpiresAt().AsTime(),
		Source:    sources[answer.GetSource()],
	}
}

var sources = map[secretsidecarv1.Source]Source{
	secretsidecarv1.Source_SOURCE_VAULT: FromVault,
	secretsidecarv1.Source_SOURCE_CACHE: FromCache,
	secretsidecarv1.Source_SOURCE_STALE: Stale,
}
