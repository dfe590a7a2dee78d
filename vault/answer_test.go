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

// Bodies marked (o) were observed on Vault 1.21.2, request ids shortened.
func TestWhatVaultsAnswersMean(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   error // nil: a secret
	}{
		"(o) a secret": {200, `{"request_id":"f9","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":{"a":"b2"},"metadata":` +
			someMetadata + `},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}`, nil},
		"(o) a secret without keys":                 {200, `{"data":{"data":{},"metadata":` + someMetadata + `},"warnings":null}`, nil},
		"(o) a secret with null data":               {200, `{"data":{"data":null,"metadata":` + someMetadata + `},"warnings":null}`, nil},
		"(o) a version that never was":              {404, `{"errors":[]}`, ErrNothing},
		"(o) a missing secret":                      {404, `{"errors":[]}`, ErrNothing},
		"(o) a missing secret in KV v1":             {404, `{"errors":[]}`, ErrNothing},
		"(o) a deleted version":                     {404, `{"request_id":"e7","data":{"data":null,"metadata":{"created_time":"2026-11-23T19:59:12.528989607Z","custom_metadata":null,"deletion_time":"2026-11-23T19:59:12.542068485Z","destroyed":false,"version":1}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":""}`, ErrVersionDeleted},
		"(o) a destroyed version":                   {404, `{"request_id":"a1","data":{"data":null,"metadata":{"created_time":"2026-11-23T19:59:12.554762241Z","custom_metadata":null,"deletion_time":"","destroyed":true,"version":1}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":""}`, ErrVersionDestroyed},
		"deleted, by a clock that is ahead of ours": {404, deletedAt("2999-01-01T00:00:00Z", false), ErrVersionDeleted},
		"deleted, with an offset":                   {404, deletedAt("2999-01-01T00:00:00+02:00", false), ErrVersionDeleted},
		"deleted at a time that is none":            {404, deletedAt("soon", false), ErrVersionDeleted},
		"destroyed before the time of its deletion": {404, deletedAt("2999-01-01T00:00:00Z", true), ErrVersionDestroyed},
		"destroyed after it":                        {404, deletedAt("2001-01-01T00:00:00Z", true), ErrVersionDestroyed},
		"deleted and destroyed":                     {404, `{"data":{"data":null,"metadata":{"created_time":"2026-11-23T19:59:12.554762241Z","deletion_time":"2026-11-23T19:59:12.542068485Z","destroyed":true,"version":1}}}`, ErrVersionDestroyed},
		"(o) KV v1, written like v2":                {200, `{"request_id":"90","lease_duration":2764800,"data":{"data":{"a":"b"}},"warnings":null,"mount_type":"kv"}`, ErrNotKVv2},
		"(o) KV v1":                                 {200, `{"request_id":"e5","lease_duration":2764800,"data":{"a":"b"},"warnings":null,"mount_type":"kv"}`, ErrNotKVv2},
		"KV v1 whose data is text":                  {200, `{"data":{"data":"text","metadata":` + someMetadata + `}}`, ErrNotKVv2},
		"an answer without data":                    {200, `{"request_id":"1","data":null}`, ErrNotKVv2},
		"(o) transit, pki, ssh":                     {404, `{"errors":["1 error occurred:\n\t* unsupported path\n\n"]}`, ErrNotKVv2},
		"(o) KV v2, not below data":                 {404, `{"request_id":"21","data":null,"warnings":["Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. If using the Vault CLI, use 'vault kv get' for this operation."],"auth":null,"mount_type":""}`, ErrNotKVv2},
		"an operation that is not there":            {405, `{"errors":["1 error occurred:\n\t* unsupported operation\n\n"]}`, ErrNotKVv2},
		"(o) no such mount":                         {404, `{"errors":["no handler for route \"gone/data/x\". route entry not found."]}`, ErrNotFound},
		"(o) denied by policy":                      {403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, ErrPermissionDenied},
		"(o) no token":                              {403, `{"errors":["permission denied"]}`, ErrPermissionDenied},
		"(o) a revoked token":                       {403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, ErrInvalidToken},
		"(o) a malformed path":                      {400, ``, ErrInvalidPath},
		"a malformed path with a reason":            {400, `{"errors":["x"]}`, ErrInvalidPath},
		"a strange status":                          {418, `{"errors":[]}`, ErrUnreachable},
		"errors that are no list":                   {404, `{"errors":{}}`, ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			secret, err := readOf(test.status, test.body)
			if !errors.Is(err, test.want) || (err == nil) != (secret != nil) {
				t.Errorf("error %v, secret %v, want %v", err, secret, test.want)
			}
		})
	}
}

// deletedAt is Vault's answer to a read of a version that is gone.
func deletedAt(deletion string, destroyed bool) string {
	return fmt.Sprintf(`{"data":{"data":null,"metadata":{"created_time":"2000-01-01T00:00:00Z","deletion_time":%q,"destroyed":%v,"version":1}}}`,
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
			body := fmt.Sprintf(`{"data":{"data":%s,"metadata":{"created_time":"2000-01-01T00:00:00Z","deletion_time":%q,"destroyed":false,"version":1}}}`,
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
	ans.decode()
	if outage := ans.outage(doingRead, ""); outage != nil {
		return nil, outage
	}
	return decideRead(ans, "secret/data/app")
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
		t.Errorf("version %d, created %s, size %d", secret.Version(), secret.CreatedAt(), secret.Size())
	}
}

func TestASecretWithoutDataThatWillBeDeletedLaterIsAlive(t *testing.T) {
	const body = `{"request_id":"r","data":{"data":null,"metadata":{"version":1,"created_time":"2000-01-01T00:00:00Z","deletion_time":%q,"destroyed":false}}}`
	if _, err := readOf(200, fmt.Sprintf(body, "2999-01-01T00:00:00Z")); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := readOf(200, fmt.Sprintf(body, "2001-01-01T00:00:00Z")); !errors.Is(err, ErrVersionDeleted) {
		t.Errorf("got %v", err)
	}
}

func TestNoCauseQuotesWhatThePeerSent(t *testing.T) {
	err := (&Client{}).transportError(t.Context(), doingRead, errors.New(`malformed HTTP status code "hunter2"`))
	if call, ok := errors.AsType[*CallError](err); !ok || strings.Contains(call.Cause.Error(), "hunter2") {
		t.Errorf("got %v", DebugAttrs(err))
	}
}

// readSentinels are all that decideRead may wrap.
var readSentinels = []error{
	ErrNotFound, ErrVersionDeleted, ErrVersionDestroyed, ErrPermissionDenied, ErrNotKVv2, ErrInvalidPath, ErrTooLarge,
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
		if err != nil && !slices.ContainsFunc(readSentinels, func(sentinel error) bool { return errors.Is(err, sentinel) }) {
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
