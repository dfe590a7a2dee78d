package vault

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// probedCall makes one of the Client's calls; path ends the path of the request that the row
// answers.
type probedCall struct {
	path string
	make func(ctx context.Context, c *Client) (LoginFate, error)
}

var testToken = redact.New("hvs.test-token")

// sideCall is a call that is no login.
func sideCall(path string, made func(ctx context.Context, c *Client) error) probedCall {
	return probedCall{path, func(ctx context.Context, c *Client) (LoginFate, error) {
		return 0, made(ctx, c)
	}}
}

var testRole = AppRole{Mount: "approle", RoleID: redact.New("role"), SecretID: redact.New("secret")}

func aToken() *Token {
	return &Token{ID: testToken, Renewable: true, TTL: time.Hour, Granted: time.Now(),
		Since: time.Now(), Role: "app"}
}

func readApp(ctx context.Context, c *Client) error {
	_, err := c.Read(ctx, testToken, "secret/data/app/db", 0)
	return err
}

// callsByName are the calls that an answerRow names.
var callsByName = map[string]probedCall{
	"login": {"/login", func(ctx context.Context, c *Client) (LoginFate, error) {
		_, fate, err := c.Login(ctx, testRole)
		return fate, err
	}},
	"renew":  sideCall("/renew-self", func(ctx context.Context, c *Client) error { _, err := c.Renew(ctx, aToken()); return err }),
	"revoke": sideCall("/revoke-self", func(ctx context.Context, c *Client) error { return c.Revoke(ctx, aToken()) }),
	"read":   sideCall("/app/db", readApp),
	"read-again": sideCall("/app/db", func(ctx context.Context, c *Client) error {
		c.honoured.Store(&testToken) // as after a read that Vault has answered
		return readApp(ctx, c)
	}),
	"mount": sideCall("/mounts/secret/data/app/db", func(ctx context.Context, c *Client) error {
		_, err := c.MountOf(ctx, testToken, "secret/data/app/db")
		return err
	}),
	"mounts":          sideCall("/sys/mounts", func(ctx context.Context, c *Client) error { _, err := c.Mounts(ctx, testToken); return err }),
	"wrapping-lookup": sideCall("/wrapping/lookup", unwrapOne),
	"unwrap":          sideCall("/wrapping/unwrap", unwrapOne),
	"secret-id": sideCall("/secret-id/lookup", func(ctx context.Context, c *Client) error {
		_, err := c.SecretIDExpiry(ctx, aToken(), testRole)
		return err
	}),
	"health": sideCall("/sys/health", func(ctx context.Context, c *Client) error { return c.Well(ctx) }),
}

func unwrapOne(ctx context.Context, c *Client) error {
	_, err := c.UnwrapSecretID(ctx, testToken)
	return err
}

// answering answers requests whose path ends in path with the row, and others as a Vault that
// works.
type answering struct {
	row  answerRow
	path string
	sent int // how many requests the row has answered
}

func (a *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body, header := http.StatusNoContent, "", http.Header{}
	switch {
	case strings.HasSuffix(r.URL.Path, a.path):
		a.sent++
		status, body = a.row.status, a.row.body
		if name, value, ok := strings.Cut(a.row.header, ": "); ok {
			header.Set(name, value)
		}
	case strings.HasSuffix(r.URL.Path, "/wrapping/lookup"):
		status, body = http.StatusOK,
			whole(`"data":{"creation_path":"auth/approle/role/app/secret-id"}`)
	case strings.HasSuffix(r.URL.Path, "/wrapping/unwrap"):
		status, body = http.StatusOK, whole(`"data":{"secret_id":"the-secret-id"}`)
	}
	return &http.Response{StatusCode: status, Header: header, Request: r,
		Body:       io.NopCloser(strings.NewReader(body)),
		ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body))}, nil
}

func TestEachAnswerMeansWhatVaultMeans(t *testing.T) {
	for _, row := range answerRows {
		for name := range strings.FieldsSeq(row.calls) {
			t.Run(row.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					checkAnswer(t, row, callsByName[name], name == "login")
				})
			})
		}
	}
}

func checkAnswer(t *testing.T, row answerRow, call probedCall, isLogin bool) {
	answers := &answering{row: row, path: call.path}
	client, err := New(Config{Endpoint: Endpoint{Address: "http://vault.test:8200"},
		Options: Options{Transport: answers}})
	if err != nil {
		t.Fatal(err)
	}
	fate, err := call.make(t.Context(), client)
	if answers.sent == 0 {
		t.Fatal("the call did not get the answer")
	}
	if !errors.Is(err, row.means.err) {
		t.Errorf("the caller gets %v, want %v", err, row.means.err)
	}
	if reach := ReachOf(err); reach != row.means.reach {
		t.Errorf("reaches as far as %d, want %d", reach, row.means.reach)
	}
	if outcome := outcomeOf(err); outcome != row.means.outcome {
		t.Errorf("the breaker learns %d, want %d", outcome, row.means.outcome)
	}
	if rule := copyAfter(err); rule != row.means.copy {
		t.Errorf("the copy %s, want: %s", rule, row.means.copy)
	}
	if want := row.fateWanted(); isLogin && fate != want {
		t.Errorf("the login's fate is %d, want %d", fate, want)
	}
	checkTold(t, row, err)
}

// fateWanted is the LoginFate that the row wants.
func (r answerRow) fateWanted() LoginFate {
	switch {
	case r.fate != 0:
		return r.fate
	case r.means.err == nil:
		return LoginGranted
	case errors.Is(r.means.err, ErrLoginRejected):
		return LoginRejected
	}
	return LoginNotTried
}

// copyAfter is the server's rule for the copy of a secret whose read has ended so.
func copyAfter(err error) copyRule {
	dropping := []error{ErrNotFound, ErrVersionDeleted, ErrVersionDestroyed, ErrPermissionDenied,
		ErrNotKVv2}
	switch {
	case err == nil:
		return replaced
	case Outage(err):
		return stale
	case slices.ContainsFunc(dropping, func(sentinel error) bool {
		return errors.Is(err, sentinel)
	}):
		return dropped
	}
	return kept
}

// checkTold looks at what a person is told.
func checkTold(t *testing.T, row answerRow, err error) {
	t.Helper()
	call, ok := errors.AsType[*CallError](err)
	if !ok {
		return
	}
	if Outage(err) && call.Remedy == "" || !strings.Contains(call.Remedy, row.hint) {
		t.Errorf("the remedy is %q, want one with %q", call.Remedy, row.hint)
	}
	told := call.Error() + "\n" + call.Remedy
	if call.Cause != nil {
		told += "\n" + call.Cause.Error()
	}
	for _, text := range row.texts() {
		if strings.Contains(told, text) {
			t.Errorf("%q is in what is told: %s", text, told)
		}
	}
}

// texts are those that the answer's sender has chosen, each of which may be a secret.
func (r answerRow) texts() []string {
	var decoded struct{ Errors, Warnings []string }
	if json.Unmarshal([]byte(r.body), &decoded) != nil {
		decoded.Errors = []string{strings.TrimSpace(r.body)}
	}
	_, value, _ := strings.Cut(r.header, ": ")
	return slices.DeleteFunc(slices.Concat(decoded.Errors, decoded.Warnings, []string{value}),
		func(text string) bool { return len(text) < 3 })
}

func TestTheTableNamesEachAnswerOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range answerRows {
		if seen[row.name] {
			t.Errorf("%s is there twice", row.name)
		}
		seen[row.name] = true
		for name := range strings.FieldsSeq(row.calls) {
			if callsByName[name].make == nil {
				t.Errorf("%s: there is no call %q", row.name, name)
			}
		}
	}
}

func TestThePageOfAnswersNamesThoseOfTheTable(t *testing.T) {
	page, err := os.ReadFile("../docs/vault-answers.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, cells := range regexp.MustCompile(`(?m)^\| .*$`).FindAllString(string(page), -1) {
		columns := strings.Split(strings.Trim(cells, "| "), "|")
		for _, name := range regexp.MustCompile("`([a-z0-9-]+)`").FindAllStringSubmatch(
			columns[len(columns)-1], -1) {
			named[name[1]] = true
		}
	}
	for _, row := range answerRows {
		if !named[row.name] {
			t.Errorf("the page does not name %s", row.name)
		}
		delete(named, row.name)
	}
	for name := range named {
		t.Errorf("the page names %s, which is no answer of the table", name)
	}
}

func TestANodeThatLagsIsAskedAgainAndAnAgentThatMissesAHeaderIsNot(t *testing.T) {
	for text, most := range map[string]int{"required index state not present": 8,
		`missing "X-Vault-Request" header`: 1} {
		synctest.Test(t, func(t *testing.T) {
			answers := &answering{row: answerRow{status: http.StatusPreconditionFailed,
				body: says(text)}, path: "/app/db"}
			client, err := New(Config{Endpoint: Endpoint{Address: "http://vault.test:8200"},
				Options: Options{Transport: answers}})
			if err != nil {
				t.Fatal(err)
			}
			if err := readApp(t.Context(), client); !errors.Is(err, ErrUnreachable) {
				t.Errorf("got %v", err)
			}
			if answers.sent > most || most > 1 && answers.sent < 3 {
				t.Errorf("%q: asked %d times", text, answers.sent)
			}
		})
	}
}

func TestAPlainDenialEndsTheTokenOnlyIfVaultHasHonouredIt(t *testing.T) {
	answers := &answering{row: answerRow{status: http.StatusForbidden,
		body: says("permission denied")}, path: "/app/db"}
	client, err := New(Config{Endpoint: Endpoint{Address: "http://vault.test:8200"},
		Options: Options{Transport: answers}})
	if err != nil {
		t.Fatal(err)
	}
	read := func(token string, status int, body string) error {
		answers.row.status, answers.row.body = status, body
		_, err := client.Read(t.Context(), redact.New(token), "secret/data/app/db", 0)
		return err
	}
	for _, step := range []struct {
		token  string
		status int
		body   string
		want   error
	}{
		{"first", 403, says("permission denied"), ErrPermissionDenied}, // from a network that it is not bound to
		{"first", 404, `{"errors":[]}`, ErrNotFound},                   // its policies have let it through
		{"first", 403, says("permission denied"), ErrInvalidToken},     // OpenBao, when it was revoked
		{"second", 403, says("permission denied"), ErrPermissionDenied},
		{"second", 403, says(badToken), ErrInvalidToken},
		{"second", 403, says("permission denied"), ErrPermissionDenied},
		{"second", 403, one("permission denied"), ErrPermissionDenied}, // its policies have been asked
		{"second", 403, says("permission denied"), ErrInvalidToken},
		{"third", 403, says("permission denied"), ErrPermissionDenied}, // so a login that does not help is the only one
	} {
		if err := read(step.token, step.status, step.body); !errors.Is(err, step.want) {
			t.Errorf("%s, %d %s: %v, want %v", step.token, step.status, step.body, err, step.want)
		}
	}
}
