package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/secret-sidecar/secret-sidecar/client"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// How the client libraries take what a platform has stored, and how the platform's own resolver
// does. The texts are generated; a model says what the platform hands to the third party for each;
// both libraries resolve all of them. Each difference is one that docs/clients.md lists.

// generatedReferences is how many texts the generator makes.
const generatedReferences = 10_000

// platformConnections are the ids of connections that platform and sidecar have.
var platformConnections = []string{"prod", "aB3dE6gH9jK2mN5pQ8sT1"}

// platformSecrets are the secrets that Vault holds, by the path in its API. Some are there because
// the platform's resolver comes to them by a reference to another one.
func platformSecrets() map[string]map[string]any {
	plain := map[string]any{
		"key": "value", "api key": "with a blank", "ключ": "Unicode",
		"k|ap_sep_v1|k": "a separator", "{a}": "braces", "{{a}}": "two braces",
		"empty": "", "number": 7, "zero": 0, "yes": true, "no": false,
		"object": map[string]any{"a": "b"}, "list": []any{"a"}, "b/c": "not reached by a path",
	}
	secrets := map[string]map[string]any{}
	for _, path := range []string{
		"secret/data/app", "team/kv/data/app/db", "größe/data/日本/data", "secret/data/with space",
		"secret/data/a", "secret/data/A", "secret/data/x|ap_sep_v1|y", "secret/data/{braces}",
		"secret/data/{{a}}", "secret/data/b}}c",
		"secret/data/a/key}}{{prod|ap_sep_v1|secret/data/a",
		"secret/data/what?", "secret/data/what", "secret/data/c#d", "secret/data/c",
		"secret/data/%41", "secret/data/a%", "secret/data/%2e%2e/data/a", "secret/data/a\\b",
		"secret/data/a/b", "secret/data/app ",
		"secret/data/" + strings.Repeat("long/", 230) + "end",
	} {
		secrets[path] = plain
	}
	return secrets
}

// platformText is a text in a connection's value, and whether it stands in a list there.
type platformText struct {
	Text   string `json:"text"`
	InList bool   `json:"inList"`
}

// generatePlatformTexts makes texts such as people and programs store: mostly references to secrets
// that are there, with faults of every kind.
func generatePlatformTexts(seed uint64, secrets map[string]map[string]any) []platformText {
	r := rand.New(rand.NewPCG(seed, 0)) // #nosec G404 -- no secret
	paths := make([]string, 0, len(secrets))
	for path := range secrets {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	var keys []string
	for key := range secrets[paths[0]] {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	texts := make([]platformText, generatedReferences)
	for i := range texts {
		path := pick(r, paths) + "/" + pick(r, append(keys, "key", "key", "absent"))
		for range r.IntN(3) {
			path = withFault(r, path)
		}
		texts[i] = platformText{wrapped(r, path), r.IntN(20) == 0}
	}
	return texts
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

// withFault changes a path at a place, or leaves it as it is.
func withFault(r *rand.Rand, path string) string {
	faults := []string{
		"/", "//", "/./", "/../", "?", "#", "%", "%2F", "%2e", "%zz", "\\",
		" ", "\t", "\n", "\x00", "\u007f", "\u00a0", "é",
		"{{", "}}", "{", "}", "|", "|ap_sep_v1|", "/data/", "~", "+", "&", "\"", "<", ";", "'",
	}
	switch r.IntN(8) {
	case 0:
		return "/" + path
	case 1:
		return path + pick(r, []string{"/", " ", "\n", "?", "#"})
	case 2:
		return " " + path
	case 3: // an empty segment, or one that leads nowhere
		return strings.Replace(path, "/", pick(r, []string{"//", "/./", "/x/../", "/%2e/"}),
			1+r.IntN(3))
	case 4: // cut off
		segments := strings.Split(path, "/")
		return strings.Join(segments[:r.IntN(len(segments)+1)], "/")
	case 5:
		return path
	}
	runes := []rune(path)
	at := r.IntN(len(runes) + 1)
	return string(runes[:at]) + pick(r, faults) + string(runes[at:])
}

// wrapped makes a stored reference of a path, or something that looks like one.
func wrapped(r *rand.Rand, path string) string {
	blanks := []string{"", "", "", " ", "\n", "\t ", "\u00a0", "\ufeff", "\u200b"}
	others := []string{"prod", "prod", "prod", "", " prod", "nobody", "{{prod"}
	connection := pick(r, append(others, platformConnections...))
	reference := "{{" + connection + "|ap_sep_v1|" + path + "}}"
	switch r.IntN(20) {
	case 0:
		reference = "Bearer " + reference
	case 1:
		reference += reference
	case 2:
		reference = strings.Trim(reference, "{")
	case 3:
		reference = strings.Replace(reference, "ap_sep_v1", "AP_SEP_V1", 1)
	case 4:
		reference = "{{" + reference + "}}"
	}
	return pick(r, blanks) + reference + pick(r, blanks)
}

// platform returns what the platform's resolver puts in the place of a text. It trims, takes the
// braces off, splits at the first separator, and trims nothing inside. It does not look into lists.
// Whatever fails leaves the text.
func platform(one platformText, secrets map[string]map[string]any) any {
	inside, open := strings.CutPrefix(trimJS(one.Text), "{{")
	inside, closed := strings.CutSuffix(inside, "}}")
	connection, path, separated := strings.Cut(inside, "|ap_sep_v1|")
	isReference := open && closed && separated && path != ""
	if one.InList || !isReference || !slices.Contains(platformConnections, connection) {
		return one.Text
	}
	if strings.Count(strings.TrimSuffix(path, "/"), "/") < 2 {
		return one.Text
	}
	last := strings.LastIndex(path, "/")
	secret, found := secrets[platformReads(path[:last])]
	if !found {
		return one.Text
	}
	switch value := secret[path[last+1:]]; value {
	case nil, "", 0, false:
		return one.Text // what is false in JavaScript counts as missing
	default:
		return value
	}
}

// trimJS is JavaScript's trim.
func trimJS(text string) string {
	return strings.Trim(text, "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"+
		"\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff")
}

// platformReads returns the path of which Vault answers the secret when a path is sent unencoded:
// the URL is taken as browsers take one (https://url.spec.whatwg.org/#concept-basic-url-parser),
// and Vault redirects a path with empty segments to one without.
func platformReads(path string) string {
	text := strings.Trim("/v1/"+path, controlsAndBlank)
	text = strings.NewReplacer("\t", "", "\n", "", "\r", "", "\\", "/").Replace(text)
	text, _, _ = strings.Cut(text, "#")
	text, _, _ = strings.Cut(text, "?")
	var segments []string
	for segment := range strings.SplitSeq(text, "/") {
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case ".":
		case "..":
			segments = segments[:max(len(segments)-1, 0)]
		default:
			segments = append(segments, segment)
		}
	}
	decoded, err := url.PathUnescape(strings.Join(segments, "/"))
	if err != nil {
		return "" // Vault answers 400
	}
	cleaned := decoded
	for strings.Contains(cleaned, "//") {
		cleaned = strings.ReplaceAll(cleaned, "//", "/")
	}
	return strings.TrimPrefix(cleaned, "/v1/")
}

// controlsAndBlank is what a URL's parser takes away at both ends.
var controlsAndBlank = func() string {
	var all strings.Builder
	for r := range rune(0x21) {
		all.WriteRune(r)
	}
	return all.String()
}()

// answer is what one of our libraries made of a text: what stands there now, or why it failed.
type answer struct {
	Value  any    `json:"value"`
	Reason string `json:"reason"`
}

// difference is a row of the table in docs/clients.md.
type difference struct {
	row    string
	covers func(one platformText, theirs any, ours answer) bool
}

// pathOf is the path in a stored reference.
func pathOf(text string) string {
	_, path, _ := client.StoredReference(text)
	return path
}

// isRefused reports whether we refuse a path that the platform reads something of.
func isRefused(one platformText, theirs any, ours answer) bool {
	return theirs != one.Text && ours.Reason == "INVALID_PATH"
}

func isText(value any) bool { _, is := value.(string); return is }

var differences = []difference{
	{"a reference in a list", func(one platformText, _ any, ours answer) bool {
		_, _, stored := client.StoredReference(one.Text)
		return one.InList && stored && (ours.Reason != "" || ours.Value != one.Text)
	}},
	{"two references in one string", func(one platformText, theirs any, ours answer) bool {
		_, _, stored := client.StoredReference(one.Text)
		return !stored && theirs != one.Text && ours.Value == one.Text
	}},
	{"no connection before the separator", func(one platformText, theirs any, ours answer) bool {
		return theirs == one.Text && ours.Reason == "CONNECTION_REQUIRED"
	}},
	{"a reference fails", func(one platformText, theirs any, ours answer) bool {
		return theirs == one.Text && ours.Reason != ""
	}},
	{"the value is empty", func(one platformText, theirs any, ours answer) bool {
		return theirs == one.Text && ours.Value == "" && ours.Reason == ""
	}},
	{
		"the value is a number, a truth value, an object or a list",
		func(one platformText, theirs any, ours answer) bool {
			text, _ := json.Marshal(theirs)
			isJSON := !isText(theirs) && ours.Value == string(text)
			return isJSON || theirs == one.Text && (ours.Value == "0" || ours.Value == "false")
		},
	},
	{"a control character in the path", func(one platformText, theirs any, ours answer) bool {
		return isRefused(one, theirs, ours) && strings.ContainsFunc(pathOf(one.Text),
			unicode.IsControl)
	}},
	{"a path of more than 1,024 bytes", func(one platformText, theirs any, ours answer) bool {
		return isRefused(one, theirs, ours) && len(pathOf(one.Text)) > 1024
	}},
	{
		"a path with a leading slash, an empty segment, `.` or `..`",
		func(one platformText, theirs any, ours answer) bool {
			segments := strings.Split(pathOf(one.Text), "/")
			isOdd := func(s string) bool { return s == "" || s == "." || s == ".." }
			return isRefused(one, theirs, ours) && slices.ContainsFunc(segments, isOdd)
		},
	},
	{
		"a path with `?`, `#`, `%` or `\\`, or a blank after the secret's name",
		func(one platformText, _ any, _ answer) bool {
			path := pathOf(one.Text)
			return strings.ContainsAny(path, `?#%\`) || strings.Contains(path, " /")
		},
	},
}

func TestTheReferencesThatAPlatformStoresAreTakenAsThePageSays(t *testing.T) {
	t.Parallel()
	s, v := newSandbox(t), vaulttest.Dev(t)
	secrets := platformSecrets()
	v.Mount(t, "team/kv", "kv", "2")
	v.Mount(t, "größe", "kv", "2")
	for path, data := range secrets {
		v.WriteSecret(t, path, data)
	}
	l := s.newLogin(v, nil, `path "*" { capabilities = ["read"] }`)
	var connections []string
	for _, name := range platformConnections {
		connections = append(connections, l.connection(name, v.Address))
	}
	s.start("--config", s.config(connections...))

	texts := generatePlatformTexts(1, secrets)
	byGo := s.resolveInGo(texts)
	if byNode := s.resolveInNode(texts); byNode != nil {
		for i := range texts {
			if !reflect.DeepEqual(byGo[i], byNode[i]) {
				t.Errorf("%q: Go makes %v of it, Node.js %v", texts[i].Text, byGo[i], byNode[i])
			}
		}
	}
	seen := map[string]int{}
	for i, one := range texts {
		checkAgainstTheReference(t, one, byGo[i], secrets)
		if row := rowOf(t, one, platform(one, secrets), byGo[i]); row != "" {
			seen[row]++
		}
	}
	t.Logf("of %d: %v", len(texts), seen)
	comparePage(t, seen)
}

// rowOf returns the row that covers what differs; "" when nothing does.
func rowOf(t *testing.T, one platformText, theirs any, ours answer) string {
	t.Helper()
	if ours.Reason == "" && reflect.DeepEqual(theirs, ours.Value) {
		return ""
	}
	for _, d := range differences {
		if d.covers(one, theirs, ours) {
			return d.row
		}
	}
	t.Errorf("no row of docs/clients.md covers %q: the platform makes %v of it, we %v",
		one.Text, theirs, ours)
	return ""
}

// checkAgainstTheReference holds ours against the contract: what is a stored reference is read as
// written, and everything else is left alone.
func checkAgainstTheReference(t *testing.T, one platformText, ours answer,
	secrets map[string]map[string]any) {
	t.Helper()
	connection, path, stored := client.StoredReference(one.Text)
	if !stored {
		if ours.Value != one.Text {
			t.Errorf("%q is no stored reference, and was not left alone: %v", one.Text, ours)
		}
		return
	}
	last := max(strings.LastIndex(path, "/"), 0)
	want, found := secrets[path[:last]][strings.TrimPrefix(path[last:], "/")]
	isThere := found && len(path) <= 1024 && slices.Contains(platformConnections, connection)
	if text, _ := json.Marshal(want); !isText(want) {
		want = string(text)
	}
	if (ours.Reason == "") != isThere || isThere && ours.Value != want {
		t.Errorf("%q: %v, but Vault holds %v (%v)", one.Text, ours, want, isThere)
	}
}

// comparePage holds the table of docs/clients.md against the differences, both ways.
func comparePage(t *testing.T, seen map[string]int) {
	t.Helper()
	page, err := os.ReadFile("../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| case | the platform | here |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var rows []string
	for line := range strings.Lines(table) {
		rows = append(rows, strings.TrimSpace(strings.Split(line, " | ")[0][1:]))
	}
	for _, d := range differences {
		if !slices.Contains(rows, d.row) {
			t.Errorf("docs/clients.md has no row %q", d.row)
		}
		if seen[d.row] == 0 {
			t.Errorf("no text that was generated shows %q", d.row)
		}
	}
	if len(rows) != len(differences) {
		t.Errorf("docs/clients.md has %d rows, the test %d: %q", len(rows), len(differences), rows)
	}
}

// object puts a text where a platform has it: in a field, or in a list in one.
func (one platformText) object() any {
	if one.InList {
		return []any{one.Text}
	}
	return one.Text
}

func (s *sandbox) resolveInGo(texts []platformText) []answer {
	s.t.Helper()
	value := make([]any, len(texts))
	for i, one := range texts {
		value[i] = one.object()
	}
	resolved, err := s.openClient().ResolveObject(s.t.Context(), value, client.KeepFailed(),
		client.Timeout(patience))
	var failed *client.BatchError
	if !errors.As(err, &failed) {
		s.t.Fatalf("the error is %v", err)
	}
	answers := make([]answer, len(texts))
	for i, one := range resolved.([]any) {
		at := fmt.Sprint("/", i)
		if list, isList := one.([]any); isList {
			one, at = list[0], at+"/0"
		}
		if problem := failed.Failed[at]; problem != nil {
			answers[i] = answer{nil, problem.Reason}
			continue
		}
		answers[i] = answer{Value: one}
	}
	return answers
}

// resolvesInNode does what resolveInGo does.
const resolvesInNode = `
import { readFileSync } from 'node:fs';
import { open } from '@secret-sidecar/client';

const texts = JSON.parse(readFileSync('texts.json', 'utf8'));
const client = await open();
let failed = new Map();
const object = texts.map(({ text, inList }) => (inList ? [text] : text));
const value = await client.resolveObject(object, {
  onError: 'keep', onFailed: (error) => { failed = error.failed; }, timeout: 120_000,
});
console.log(JSON.stringify(value.map((one, i) => {
  const reason = (failed.get('/' + i) ?? failed.get('/' + i + '/0'))?.reason;
  if (reason !== undefined) return { value: null, reason };
  return { value: Array.isArray(one) ? one[0] : one, reason: '' };
})));
await client.close();
`

// resolveInNode returns nil where the Node client is not built.
func (s *sandbox) resolveInNode(texts []platformText) []answer {
	s.t.Helper()
	if !hasNodeClient(s.t) {
		return nil
	}
	encoded, err := json.Marshal(texts)
	s.must(err)
	s.write("texts.json", string(encoded))
	s.write("resolve.mjs", resolvesInNode)
	s.linkNodeClient()
	done := s.execute(s.node("resolve.mjs"))
	if done.code != 0 {
		s.t.Fatalf("resolve.mjs ended with %d:\n%s", done.code, done.stderr)
	}
	var answers []answer
	s.must(json.Unmarshal([]byte(done.stdout), &answers))
	return answers
}
