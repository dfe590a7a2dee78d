// Package redact holds the types that secret-sidecar carries credentials and secrets in, so that printing, logging or
// encoding a struct by mistake cannot show them.
package redact

import (
	"fmt"
	"log/slog"
	"unique"
)

const mask = "[redacted]"

// String is a credential. Every way of printing it that the standard library knows shows "[redacted]";
// Reveal is the only way to the text, so that a search for it finds every use. The zero value is the empty
// credential. It is comparable and safe for concurrent use.
//
// The text stands behind a pointer: fmt looks into the unexported fields of a struct without asking the methods
// of what it finds there.
type String struct {
	masked
	text unique.Handle[string] // the zero Handle is the empty credential
}

// New returns the credential with the given text.
func New(text string) String {
	if text == "" {
		return String{}
	}
	return String{text: unique.Make(text)}
}

// Reveal returns the text.
func (s String) Reveal() string {
	if s.IsEmpty() {
		return ""
	}
	return s.text.Value()
}

// IsEmpty reports whether the text is empty.
func (s String) IsEmpty() bool { return s == String{} }

// Text is a String for what is many or large: it points to its text instead of keeping one copy of every text that
// there is, and so does not compare by it. The zero value is the empty text. It is safe for concurrent use as long as
// nobody changes the text.
type Text struct {
	masked
	text *string
}

// NewText returns the text that stands at an address. It allocates nothing.
func NewText(text *string) Text { return Text{text: text} }

// Reveal returns the text.
func (t Text) Reveal() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// masked is every way of printing that must not show a text.
type masked struct{}

// String implements fmt.Stringer.
func (masked) String() string { return mask }

// GoString implements fmt.GoStringer.
func (masked) GoString() string { return mask }

// Format implements fmt.Formatter for every verb and flag.
func (masked) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(mask)) }

// LogValue implements slog.LogValuer.
func (masked) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText implements encoding.TextMarshaler, which encoding/json, YAML and flag packages use too.
func (masked) MarshalText() ([]byte, error) { return []byte(mask), nil }

// MarshalJSON implements json.Marshaler.
func (masked) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }
