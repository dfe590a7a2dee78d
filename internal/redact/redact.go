// Package redact holds the type that secret-sidecar carries credentials in, so that printing, logging or
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

// String implements fmt.Stringer.
func (s String) String() string { return mask }

// GoString implements fmt.GoStringer.
func (s String) GoString() string { return mask }

// Format implements fmt.Formatter for every verb and flag.
func (s String) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(mask)) }

// LogValue implements slog.LogValuer.
func (s String) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText implements encoding.TextMarshaler, which encoding/json, YAML and flag packages use too.
func (s String) MarshalText() ([]byte, error) { return []byte(mask), nil }

// MarshalJSON implements json.Marshaler.
func (s String) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }
