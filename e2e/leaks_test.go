package e2e_test

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// leaks knows every secret and every output of one test, and finds the secrets in the outputs. The
// zero value is ready. It is safe for concurrent use.
type leaks struct {
	mu      sync.Mutex
	secrets []string       // guarded by mu
	outputs []recordedText // guarded by mu
}

type recordedText struct {
	name string
	text func() string
}

// aVaultToken returns a token in the form of Vault's that the text holds, or "". It finds tokens
// that the test never saw. It does without a regular expression, which would cost more than the
// rest of a test.
func aVaultToken(text string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
	for _, kind := range []string{"hvs.", "hvb.", "hvr."} {
		for _, part := range strings.Split(text, kind)[1:] {
			if name := part[:len(part)-len(strings.TrimLeft(part, letters))]; len(name) >= 20 {
				return kind + name
			}
		}
	}
	return ""
}

// keep registers a secret and returns it.
func (l *leaks) keep(secret string) string {
	if secret == "" {
		return secret
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secrets = append(l.secrets, secret)
	return secret
}

// record registers a finished output.
func (l *leaks) record(name, text string) {
	l.recordLive(name, func() string { return text })
}

// recordLive registers an output that still grows.
func (l *leaks) recordLive(name string, text func() string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outputs = append(l.outputs, recordedText{name, text})
}

// find lists every secret, panic and data race in an output.
func (l *leaks) find() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, output := range l.outputs {
		text := output.text()
		for _, secret := range l.secrets {
			for _, form := range formsOf(secret) {
				if line, ok := lineWith(text, form); ok {
					found = append(found,
						fmt.Sprintf("%s shows the secret %q: %s", output.name, secret, line))
				}
			}
		}
		if token := aVaultToken(text); token != "" {
			found = append(found, fmt.Sprintf("%s shows the Vault token %q", output.name, token))
		}
		for _, trouble := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(text, trouble) {
				found = append(found, fmt.Sprintf("%s: %s\n%s", output.name, trouble, text))
			}
		}
	}
	return found
}

// formsOf returns the spellings in which a secret is still of use to a thief.
func formsOf(secret string) []string {
	quoted := strconv.Quote(secret)
	forms := []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))}
	if inner := quoted[1 : len(quoted)-1]; inner != secret {
		forms = append(forms, inner)
	}
	return forms
}

func lineWith(text, part string) (string, bool) {
	at := strings.Index(text, part)
	if at < 0 {
		return "", false
	}
	before, after := text[:at], text[at:]
	rest, _, _ := strings.Cut(after, "\n")
	return before[strings.LastIndexByte(before, '\n')+1:] + rest, true
}

func TestTheLeakCheckerFindsSecretsAndTokens(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"level=DEBUG value=hunter22\n", "x hvs.CAESIJabcdefghijklmnop y",
		"aHVudGVyMjI=", "panic: boom"} {
		var l leaks
		l.keep("hunter22")
		l.record("log", text)
		if len(l.find()) == 0 {
			t.Errorf("found nothing in %q", text)
		}
	}
	var clean leaks
	clean.keep("hunter22")
	clean.record("log", "level=INFO msg=ready")
	if found := clean.find(); len(found) > 0 {
		t.Errorf("found a leak in a clean output: %v", found)
	}
}
