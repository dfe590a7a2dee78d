package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const someMetadata = `{"created_time":"2026-11-23T19:59:12.515287063Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":2}`

func TestAVersionInA404IsGoneWhateverItsDeletionTimeSays(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		want error
	}{
		"deleted, by a clock that is ahead of ours": {deletedAt("2999-01-01T00:00:00Z", false), ErrVersionDeleted},
		"deleted, with an offset":                   {deletedAt("2999-01-01T00:00:00+02:00", false), ErrVersionDeleted},
		"deleted at a time that is none":            {deletedAt("soon", false), ErrVersionDeleted},
		"destroyed before the time of its deletion": {deletedAt("2999-01-01T00:00:00Z", true), ErrVersionDestroyed},
		"destroyed after it":                        {deletedAt("2001-01-01T00:00:00Z", true), ErrVersionDestroyed},
	} {
		if _, err := readOf(404, test.body); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// deletedAt is Vault's answer to a read of a version that is gone.
func deletedAt(deletion string, destroyed bool) string {
	return fmt.Sprintf(`{"request_id":"r","warnings":null,"data":{"data":null,"metadata":{"created_time":"2000-01-01T00:00:00Z","deletion_time":%q,"destroyed":%v,"version":1}}}`,
		deletion, destroyed)
}

func TestASecretSaysWhenVaultDeletesIt(t *testing.T) {
	for deletion, want := range map[string]time.Time{
		"":                               {},
		"2100-11-25T19:00:00.123456789Z": time.Date(2100, 11, 25, 19, 0, 0, 123456789, time.UTC),
		"2100-11-25T21:00:00+02:00":      time.Date(2100, 11, 25, 19, 0, 0, 0, time.UTC),
		"9999-01-01T00:00:00Z":           {}, // as good as never
		"soon":                           {}, // Vault sends no such thing
	} {
		for _, data := range []string{`{"key":"value"}`, `null`} {
			body := fmt.Sprintf(
				`{"data":{"data":%s,"metadata":{"created_time":"2000-01-01T00:00:00Z","deletion_time":%q,"destroyed":false,"version":1}}}`,
				data, deletion)
			secret, err := readOf(200, body)
			if data == "null" && err != nil {
				continue // it is gone
			}
			if err != nil {
				t.Errorf("%q: %v", deletion, err)
			} else if got := secret.DeletedAt(); !got.Equal(want) {
				t.Errorf("%q with data %s: deleted at %v, want %v", deletion, data, got, want)
			}
		}
	}
}

// readOf is what a read makes of an answer.
func readOf(status int, body string) (*Secret, error) {
	ans := &answer{status: status, text: []byte(body)}
	ans.decode(CallRead)
	if outage := ans.outage(doingRead, CallRead, ""); outage != nil {
		return nil, outage
	}
	return decideRead(ans, asked{path: "secret/data/app"})
}

func TestValuesComeBackDigitForDigit(t *testing.T) {
	body := `{"data":{"data":{"s":"a\u00e9\"\u003c","empty":"","n":12345678901234567890.10,"e":1E3,"null":null,"t":true,` +
		`"o":{"b":[1, 2.50]}},"metadata":` + someMetadata + `}}`
	secret, err := readOf(200, body)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]struct {
		text string
		json bool
	}{
		"s": {`aé"<`, false}, "empty": {"", false}, "n": {"12345678901234567890.10", true}, "e": {"1E3", true},
		"null": {"null", true}, "t": {"true", true}, "o": {`{"b":[1, 2.50]}`, true},
	} {
		value, ok := secret.Value(key)
		if !ok || value.Text.Reveal() != want.text || value.JSON != want.json {
			t.Errorf("%s is %q (JSON %v), want %+v", key, value.Text.Reveal(), value.JSON, want)
		}
	}
	if secret.Version() != 2 || secret.CreatedAt().IsZero() || secret.Size() < 100 {
		t.Errorf("version %d, created %s, size %d", secret.Version(), secret.CreatedAt(),
			secret.Size())
	}
}

func TestASecretWithoutDataThatWillBeDeletedLaterIsAlive(t *testing.T) {
	const body = `{"request_id":"r","data":{"data":null,"metadata":{"version":1,"created_time":"2000-01-01T00:00:00Z","deletion_time":%q,"destroyed":false}}}`
	if _, err := readOf(200, fmt.Sprintf(body, "2999-01-01T00:00:00Z")); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := readOf(200, fmt.Sprintf(body, "2001-01-01T00:00:00Z")); !errors.Is(err,
		ErrVersionDeleted) {
		t.Errorf("got %v", err)
	}
}

func TestNoCauseQuotesWhatThePeerSent(t *testing.T) {
	err := (&Client{}).transportError(t.Context(), doingRead,
		errors.New(`malformed HTTP status code "hunter2"`))
	if call, ok := errors.AsType[*CallError](err); !ok ||
		strings.Contains(call.Cause.Error(), "hunter2") {
		t.Errorf("got %v", DebugAttrs(err))
	}
}

// readSentinels are all that decideRead may wrap.
var readSentinels = []error{
	ErrNotFound, ErrVersionDeleted, ErrVersionDestroyed, ErrPermissionDenied, ErrNotKVv2,
	ErrInvalidPath, ErrTooLarge,
	ErrUnreachable, ErrSealed, ErrRateLimited, ErrInvalidToken, ErrNothing,
}

// checkDecoded compares a decoded secret with what a decoder of another kind makes of the body.
func checkDecoded(t *testing.T, secret *Secret, body string) {
	t.Helper()
	if secret.Version() == 0 {
		t.Error("the secret has no version")
	}
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	var generic struct{ Data struct{ Data map[string]any } }
	if err := decoder.Decode(&generic); err != nil {
		t.Fatalf("a secret was made of what is not JSON: %v", err)
	}
	if len(*secret.fields) != len(generic.Data.Data) {
		t.Errorf("%d keys, want %d", len(*secret.fields), len(generic.Data.Data))
	}
	for _, f := range *secret.fields {
		key := f.key
		value, found := secret.Value(key)
		if !found {
			t.Fatalf("%q is not found again", key)
		}
		want, isText := generic.Data.Data[key].(string)
		text := value.Text.Reveal()
		switch {
		case isText == value.JSON:
			t.Errorf("%q: JSON is %v, the body says %v", key, value.JSON, generic.Data.Data[key])
		case isText && text != want:
			t.Errorf("%q is %q, want %q", key, text, want)
		case !isText && (!json.Valid([]byte(text)) || !strings.Contains(body, text)):
			t.Errorf("%q is %q, which Vault did not send", key, text)
		}
	}
}

func FuzzDecideRead(f *testing.F) {
	f.Add(200, `{"data":{"data":{"a":"b"},"metadata":`+someMetadata+`}}`)
	f.Add(404, `{"errors":[]}`)
	f.Add(403, `{"errors":["invalid token"]}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		secret, err := readOf(status, body)
		if (secret == nil) == (err == nil) {
			t.Fatalf("secret %v, error %v", secret, err)
		}
		if err != nil && !slices.ContainsFunc(readSentinels, func(sentinel error) bool {
			return errors.Is(err, sentinel)
		}) {
			t.Errorf("an error that nobody can tell: %v", err)
		}
		if err == nil {
			checkDecoded(t, secret, body)
		}
		if err != nil && len(body) > 20 && strings.Contains(err.Error(), body) {
			t.Errorf("the error quotes Vault: %v", err)
		}
	})
}
