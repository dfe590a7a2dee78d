package vault

import (
	"fmt"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// perKeyOverhead is about what a key costs in memory besides its texts: two string headers, a flag, its share
// of the map.
const perKeyOverhead = 64

// Secret is one version of a KV v2 secret. It is immutable and safe for concurrent use. It prints no value.
type Secret struct {
	values    map[string]Value
	version   uint32
	createdAt time.Time
	size      int
}

// Value is the value of one key.
type Value struct {
	// Text is a JSON string's text verbatim, or any other JSON value as the JSON text that Vault sent.
	Text redact.String
	// JSON is false for a string and true for any other JSON value.
	JSON bool
}

func newSecret(values map[string]Value, version uint32, createdAt time.Time) *Secret {
	size := perKeyOverhead
	for key, value := range values {
		size += len(key) + len(value.Text.Reveal()) + perKeyOverhead
	}
	return &Secret{values: values, version: version, createdAt: createdAt, size: size}
}

// Value returns the value of key, and false when the secret has no such key.
func (s *Secret) Value(key string) (Value, bool) {
	value, ok := s.values[key]
	return value, ok
}

// Version returns the version's number, counted from 1.
func (s *Secret) Version() uint32 { return s.version }

// CreatedAt returns when the version was written, by Vault's clock.
func (s *Secret) CreatedAt() time.Time { return s.createdAt }

// Size returns about how many bytes of memory the secret takes.
func (s *Secret) Size() int { return s.size }

// Format prints a Secret without its values, whatever the verb: fmt does not ask unexported fields how they
// want to be printed.
func (s *Secret) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "secret version %d with %d keys", s.version, len(s.values))
}
