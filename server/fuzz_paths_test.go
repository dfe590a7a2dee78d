package server

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// crossingPattern gives each project what stands below its name.
const crossingPattern = "flows/data/{project_id}/**"

// FuzzPaths holds the decision about a reference against a model of its own, and looks for a
// reference that two projects may read where each has a place of its own.
func FuzzPaths(f *testing.F) {
	for _, project := range []string{
		"p1", "P1", "p2", "", ".", "..", "...", "p1/..", "p1/x", "../p2", "p1%2fx", "%70%31", "p1\\x", "*", "**",
		"{project_id}", "p1 ", "p1\u200b", "ｐ1", "p1?x", "p1#x", "p.1", "data", "\xff",
	} {
		for _, path := range []string{
			"flows/data/p1/app/key", "flows/data/p2/app/key", "flows/data/P1/app/key", "flows/data/p1/key",
			"flows/data/p1/../p2/key", "flows/data/p1%2f..%2fp2/app/key", "flows/data/%70%31/app/key",
			"flows/data/p1\\..\\p2/app/key", "flows/data/.../app/key", "flows/data/*/app/key", "flows/data/p1 /app/key",
			"flows/data/p1\u200b/app/key", "flows/data/ｐ1/app/key", "flows/data/p1?x/app/key", "flows/data/p1#x/app/key",
			"Flows/data/p1/app/key", "flows/data/data/p1/app/key", "flows/x/data/p1/app/key", "flows/data/p.1/app/key",
		} {
			f.Add(crossingPattern, path, "", project, "p2")
			f.Add("flows/data/team-{project_id}/*", strings.Replace(path, "data/", "data/team-", 1), "", project, "p1")
			f.Add("*/data/{project_id}/a/b", path, "a/b", project, "p1")
		}
	}
	f.Add("{project_id}/data/x/{project_id}", "p1/data/x/p1", "", "p1", "p2")
	f.Add("**", "flows/data/p1", "../../p2/app", "p1", "p2")
	f.Fuzz(func(t *testing.T, pattern, path, key, project, other string) {
		reference, err := vault.ParseReference(path, key)
		if err != nil {
			return
		}
		if _, err := ParsePathPattern(pattern); err == nil {
			for _, p := range []string{project, other} {
				if got, want := mayRead(t, pattern, reference, p), modelOfPaths(pattern, reference, p); got != want {
					t.Errorf("%q with %+v for project %q: %v, want %v", pattern, reference, p, got, want)
				}
			}
		}
		if !mayRead(t, crossingPattern, reference, project) {
			return
		}
		if project != other && mayRead(t, crossingPattern, reference, other) {
			t.Errorf("%+v is read by %q and by %q", reference, project, other)
		}
		if sent := sentToVault(t, reference); sent[2] != project {
			t.Errorf("%+v for project %q reaches Vault as %q", reference, project, sent)
		}
	})
}

// mayRead asks with the pattern in a rule and in a connection, which have to agree.
func mayRead(t *testing.T, text string, reference vault.Reference, project string) bool {
	t.Helper()
	pattern, err := ParsePathPattern(text)
	if err != nil {
		t.Fatal(err)
	}
	uid := uint32(1000)
	rules := []CallerRule{{UID: &uid, Paths: []PathPattern{pattern}}}
	c := &connection{Connection: Connection{Name: "prod", Scope: ScopePlatform, Paths: []PathPattern{pattern}}}
	byRule := authorize(rules, unixsocket.Peer{UID: uid}, access{
		method: methodResolve, connection: "prod", project: project, target: targetOf(reference),
	}) == nil
	if byConnection := c.allows(project, targetOf(reference)) == nil; byConnection != byRule {
		t.Errorf("%q with %+v for %q: rule %v, connection %v", text, reference, project, byRule, byConnection)
	}
	return byRule
}

// modelOfPaths says the same by a regular expression. A slash in the key is no slash there.
func modelOfPaths(pattern string, reference vault.Reference, project string) bool {
	isPlain := strings.Trim(project, ".") != ""
	for _, r := range project {
		isPlain = isPlain && r != unicode.ReplacementChar && !strings.ContainsRune(`/\%*?#{}`, r) &&
			unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S)
	}
	expression := regexp.QuoteMeta(pattern)
	expression = strings.ReplaceAll(expression, `\*\*`, `[^/]+(/[^/]+)*`)
	expression = strings.ReplaceAll(expression, `\*`, `[^/]+`)
	if variable := regexp.QuoteMeta(projectVariable); strings.Contains(expression, variable) {
		if !isPlain {
			return false
		}
		expression = strings.ReplaceAll(expression, variable, regexp.QuoteMeta(project))
	}
	text := reference.Path + "/" + strings.ReplaceAll(reference.Key, "/", "\x00")
	return regexp.MustCompile(`(?s)^` + expression + `$`).MatchString(text)
}

// sentToVault returns the segments as Vault has them, and as something before Vault would have them
// that decodes too often.
func sentToVault(t *testing.T, reference vault.Reference) []string {
	t.Helper()
	sent := (&url.URL{Path: reference.Path}).EscapedPath()
	for range 3 {
		decoded, err := url.PathUnescape(sent)
		if err != nil {
			break // a percent sign of the secret's own name
		}
		sent = decoded
	}
	return strings.Split(sent, "/")
}
