// Package redact holds the types that carry credentials and secrets through the sidecar.
//
// A plain string leaks by mistake: somebody logs the struct that holds it. Nothing that the
// standard library prints, logs or encodes shows the text of these types. Reveal alone returns it,
// so a search for Reveal finds every place that can leak.
//
// Memory is another matter. Go copies strings as it likes, and nothing here is ever wiped.
package redact

import (
	"fmt"
	"log/slog"
	"unique"
)

const mask = "[redacted]"

// String is a credential. It prints as "[redacted]" in every way that the standard library knows.
// The zero value is the empty credential. It is comparable and safe for concurrent use.
//
// The text is behind a pointer, because fmt prints the unexported fields of a struct without
// calling their methods.
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

// Text is a String for texts that are many or large. It points to a text that is already in memory
// and costs nothing, where a String keeps a copy. Two of them are equal when they point to the same
// place, not when they read the same. The zero value is the empty text. It is safe for concurrent
// use as long as nobody changes the text.
type Text struct {
	masked
	text *string
}

// NewText returns the text at an address. It allocates nothing.
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

// MarshalText implements encoding.TextMarshaler, which encoding/json, YAML and flag packages use
// too.
func (masked) MarshalText() ([]byte, error) { return []byte(mask), nil }

// MarshalJSON implements json.Marshaler.
func (masked) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }
