package redact_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

func TestNoWayOfPrintingShowsTheText(t *testing.T) {
	const text = "hunter2"
	secret := redact.New(text)
	nested := struct {
		Name   string
		Secret redact.String
		Inner  *redact.String
		hidden redact.String
		deep   struct{ hidden []redact.String }
	}{Name: "n", Secret: secret, Inner: &secret, hidden: secret}
	nested.deep.hidden = []redact.String{secret}
	where := text
	value := redact.NewText(&where)
	values := struct {
		Text   redact.Text
		Inner  *redact.Text
		hidden redact.Text
		deep   struct{ hidden []redact.Text }
	}{Text: value, Inner: &value, hidden: value}
	values.deep.hidden = []redact.Text{value}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		for _, thing := range []any{nested, values, secret, &secret, value, &value} {
			args := []any{thing}
			if strings.HasPrefix(verb, "%T") {
				args = []any{thing, thing}
			}
			fmt.Fprintf(&out, verb, args...)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil),
		slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "secret", secret, "nested", nested, "value", value, "values", values)
	}
	for _, thing := range []any{nested, values} {
		if err := json.NewEncoder(&out).Encode(thing); err != nil {
			t.Fatal(err)
		}
	}

	hex := fmt.Sprintf("%x", text)
	for _, leak := range []string{text, hex, strings.ToUpper(hex)} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("printed %q: %s", leak, out.String())
		}
	}
	var empty redact.String
	if secret != redact.New(text) || redact.New("") != empty || empty.Reveal() != "" {
		t.Error("credentials do not compare by their text")
	}
	if secret.Reveal() != text || secret.IsEmpty() || !(redact.String{}).IsEmpty() {
		t.Error("Reveal or IsEmpty is wrong")
	}
	if value.Reveal() != text || (redact.Text{}).Reveal() != "" {
		t.Error("Reveal of a Text is wrong")
	}
}
