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

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		args := []any{nested}
		if strings.HasPrefix(verb, "%T") {
			args = []any{secret, secret}
		}
		fmt.Fprintf(&out, verb, args...)
		fmt.Fprintf(&out, verb, secret, &secret)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "secret", secret, "nested", nested)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "secret", secret, "nested", nested)
	if err := json.NewEncoder(&out).Encode(nested); err != nil {
		t.Fatal(err)
	}

	hex := fmt.Sprintf("%x", text)
	for _, leak := range []string{text, hex, strings.ToUpper(hex)} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("printed %q: %s", leak, out.String())
		}
	}
	if secret != redact.New(text) || redact.New("") != (redact.String{}) || (redact.String{}).Reveal() != "" {
		t.Error("credentials do not compare by their text")
	}
	if secret.Reveal() != text || secret.IsEmpty() || !(redact.String{}).IsEmpty() {
		t.Error("Reveal or IsEmpty is wrong")
	}
}
