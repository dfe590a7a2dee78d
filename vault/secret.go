package vault

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const (
	// secretOverhead is about what a secret costs in memory besides its keys.
	secretOverhead = 56
	// keyOverhead is about what a key costs beside its texts: two string headers, and the
	// allocator's rounding up.
	keyOverhead = 48
)

// Secret is one version of a KV v2 secret. It is immutable, safe for concurrent use, and prints no
// value.
type Secret struct {
	// fields hold the texts sorted by key, then the other values sorted by key. They are behind a
	// pointer, because fmt does not follow it when it prints a struct that contains a Secret.
	fields    *[]field
	createdAt int64 // in nanoseconds since 1970, or notDated: a time.Time is three times as large
	deletedAt int64 // likewise
	version   uint32
	texts     uint32 // how many fields are texts
}

// notDated represents the zero time, and every time outside nanoseconds since 1970.
const notDated = -1 << 63

// field is one key with its value.
type field struct {
	key, text string
}

// Value is the value of one key.
type Value struct {
	// Text is a JSON string's text verbatim, or any other JSON value as the JSON text that Vault
	// sent.
	Text redact.Text
	// JSON is false for a string and true for any other JSON value.
	JSON bool
}

// newSecret builds a secret from strings and other JSON values. No key may occur in both.
func newSecret(texts, others []field, version uint32, createdAt, deletedAt time.Time) *Secret {
	sortByKey(texts)
	sortByKey(others)
	fields := slices.Concat(texts, others)
	return &Secret{
		fields: &fields, texts: uint32(len(texts)), // #nosec G115 -- an answer of Vault's is smaller
		version: version, createdAt: dated(createdAt), deletedAt: dated(deletedAt),
	}
}

// dated returns the time in nanoseconds since 1970, or notDated.
func dated(t time.Time) int64 {
	if year := t.Year(); year <= 1677 || 2262 <= year {
		return notDated
	}
	return t.UnixNano()
}

// undated is the reverse of dated.
func undated(nanoseconds int64) time.Time {
	if nanoseconds == notDated {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}

// Value returns the value of key, and false when the secret has no such key.
func (s *Secret) Value(key string) (Value, bool) {
	texts, others := (*s.fields)[:s.texts], (*s.fields)[s.texts:]
	if f := find(texts, key); f != nil {
		return Value{Text: redact.NewText(&f.text)}, true
	}
	if f := find(others, key); f != nil {
		return Value{Text: redact.NewText(&f.text), JSON: true}, true
	}
	return Value{}, false
}

func sortByKey(fields []field) {
	slices.SortFunc(fields, func(a, b field) int { return cmp.Compare(a.key, b.key) })
}

// find returns the field with this key; nil when there is none. The fields are sorted by key.
func find(fields []field, key string) *field {
	i, ok := slices.BinarySearchFunc(fields, key, func(f field, key string) int {
		return cmp.Compare(f.key, key)
	})
	if !ok {
		return nil
	}
	return &fields[i]
}

// Version returns the version's number, counted from 1.
func (s *Secret) Version() uint32 { return s.version }

// CreatedAt returns when the version was written, by Vault's clock; the zero time when Vault named
// none, or one that is more than 250 years from now.
func (s *Secret) CreatedAt() time.Time { return undated(s.createdAt) }

// DeletedAt returns when Vault deletes the version by itself (delete_version_after), by Vault's
// clock; the zero time when Vault named no such time, or one that is more than 250 years from now.
func (s *Secret) DeletedAt() time.Time { return undated(s.deletedAt) }

// Len returns the number of the secret's keys.
func (s *Secret) Len() int { return len(*s.fields) }

// Size returns about how many bytes of memory the secret takes.
func (s *Secret) Size() int {
	size := secretOverhead
	for _, f := range *s.fields {
		size += len(f.key) + len(f.text) + keyOverhead
	}
	return size
}

// Format prints a Secret without its values, whatever the verb: fmt does not ask unexported fields
// how they want to be printed.
func (s *Secret) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "secret version %d with %d keys", s.version, len(*s.fields))
}
