package client_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/client"
)

// vector is a line of testdata/stored_references.json, which the clients of all languages share.
type vector struct {
	Text       string
	Stored     *bool // only written when it is false
	Connection string
	Path       string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/stored_references.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAStoredReferenceIsTakenApartAsTheVectorsSay(t *testing.T) {
	for _, v := range vectors(t) {
		connection, path, stored := client.StoredReference(v.Text)
		if want := v.Stored == nil; stored != want {
			t.Errorf("%q is a stored reference: %v, want %v", v.Text, stored, want)
			continue
		}
		if stored && (connection != v.Connection || path != v.Path) {
			t.Errorf("%q is %q of %q, want %q of %q", v.Text, path, connection, v.Path,
				v.Connection)
		}
	}
}

// A written model of the rule: it looks at the text letter by letter, and shares no code with the
// client.
func model(text string) (connection, path string, stored bool) {
	letters := []rune(text)
	blanks := "\t\n\v\f\r " +
		"\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
	isBlank := func(r rune) bool { return strings.ContainsRune(blanks, r) }
	for len(letters) > 0 && isBlank(letters[0]) {
		letters = letters[1:]
	}
	for len(letters) > 0 && isBlank(letters[len(letters)-1]) {
		letters = letters[:len(letters)-1]
	}
	n := len(letters)
	if n < 4 || letters[0] != '{' || letters[1] != '{' || letters[n-1] != '}' ||
		letters[n-2] != '}' {
		return "", "", false
	}
	inside := letters[2 : n-2]
	for i, hasClosed := 1, 0; i < len(inside); i++ {
		switch pair := string(inside[i-1 : i+1]); {
		case pair == "}}" && hasClosed == 0:
			hasClosed = i
		case pair == "{{" && hasClosed > 0 && i-1 > hasClosed:
			return "", "", false
		}
	}
	separator := []rune("|ap_sep_v1|")
	for i := 0; i+len(separator) <= len(inside); i++ {
		if string(inside[i:i+len(separator)]) == string(separator) {
			return string(inside[:i]), string(inside[i+len(separator):]), true
		}
	}
	return "", "", false
}

func FuzzAStoredReferenceIsWhatTheModelSays(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if string([]rune(text)) != text {
			t.Skip("the model takes valid UTF-8")
		}
		connection, path, stored := client.StoredReference(text)
		wantConnection, wantPath, want := model(text)
		if stored != want || stored && (connection != wantConnection || path != wantPath) {
			t.Errorf("%q: %q of %q (%v), the model says %q of %q (%v)", text, path, connection,
				stored, wantPath, wantConnection, want)
		}
	})
}
