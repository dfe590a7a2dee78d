package server

import (
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

func TestPatternsMatchSegmentBySegment(t *testing.T) {
	for _, test := range []struct {
		pattern, path, key, project string
		want                        bool
	}{
		{"flows/data/shared/key", "flows/data/shared/key", "", "", true},
		{"flows/data/shared/key", "flows/data/shared/Key", "", "", false},
		{"flows/data/shared/key", "flows/data/shared", "key", "", true},
		{"flows/data/shared/*", "flows/data/shared", "a/b", "", true},
		{"flows/data/shared/a/b", "flows/data/shared", "a/b", "", false},
		{"flows/data/shared/a/*", "flows/data/shared", "a/b", "", false},
		{"flows/data/*/*", "flows/data/shared/key", "", "", true},
		{"flows/data/*/*", "flows/data/shared/deep/key", "", "", false},
		{"flows/data/**", "flows/data/shared/deep/key", "", "", true},
		{"flows/data/shared/**", "flows/data/shared/key", "", "", true},
		{"flows/data/shared/**", "flows/data/shared2/key", "", "", false},
		{"flows/data/shared/x/**", "flows/data/shared/x", "", "", false},
		{"**", "flows/data/shared/key", "", "", true},
		{"flows/data/{project_id}/*", "flows/data/p1/key", "", "p1", true},
		{"flows/data/{project_id}/*", "flows/data/p1/key", "", "p2", false},
		{"flows/data/{project_id}/*", "flows/data/p1/key", "", "P1", false},
		{"flows/data/{project_id}/*", "flows/data/p1/key", "", "", false},
		{"flows/data/team-{project_id}/*", "flows/data/team-p1/key", "", "p1", true},
		{"flows/data/team-{project_id}/*", "flows/data/team-/key", "", "", false},
		{"flows/data/{project_id}.v2/*", "flows/data/p1.v2/key", "", "p1", true},
		{"flows/data/a{project_id}a/*", "flows/data/a/key", "", "", false},
		{"{project_id}/data/{project_id}/*", "p1/data/p1/key", "", "p1", true},
		{"{project_id}/data/{project_id}/*", "p1/data/p2/key", "", "p1", false},
		{"flows/data/shared/{project_id}", "flows/data/shared/p1", "", "p1", true},
		{"flows/data/shared/{project_id}", "flows/data/shared", "p1/x", "p1/x", false},
		// Projects that could stand for something else.
		{"flows/data/{project_id}/*", "flows/data/p1/x/key", "", "p1/x", false},
		{"flows/data/{project_id}/*", "flows/data/.../key", "", "...", false},
		{"flows/data/{project_id}/*", "flows/data/p%2fx/key", "", "p%2fx", false},
		{"flows/data/{project_id}/*", `flows/data/p\x/key`, "", `p\x`, false},
		{"flows/data/{project_id}/*", "flows/data/*/key", "", "*", false},
		{"flows/data/{project_id}/*", "flows/data/{project_id}/key", "", "{project_id}", false},
		{"flows/data/{project_id}/*", "flows/data/p1 /key", "", "p1 ", false},
		{"flows/data/{project_id}/*", "flows/data/p\u200b1/key", "", "p\u200b1", false},
		{"flows/data/{project_id}/*", "flows/data/p?x/key", "", "p?x", false},
		{"flows/data/{project_id}/*", "flows/data/p#x/key", "", "p#x", false},
		{"flows/data/{project_id}/*", "flows/data/p.1_é-/key", "", "p.1_é-", true},
	} {
		pattern, err := ParsePathPattern(test.pattern)
		if err != nil {
			t.Fatalf("%s: %v", test.pattern, err)
		}
		reference, err := vault.ParseReference(test.path, test.key)
		if err != nil {
			t.Fatalf("%s: %v", test.path, err)
		}
		if got := pattern.matches(targetOf(reference), test.project); got != test.want {
			t.Errorf("%s with %s, key %q, project %q: %v", test.pattern, test.path, test.key, test.project, got)
		}
	}
}

func TestAPatternCoversASecretOfWhichItCoversAKey(t *testing.T) {
	for _, test := range []struct {
		pattern, secret string
		want            bool
	}{
		{"flows/data/{project_id}/key", "flows/data/p1", true},
		{"flows/data/{project_id}/key", "flows/data/p2", false},
		{"flows/data/{project_id}/*", "flows/data/p1", true},
		{"flows/data/{project_id}/*", "flows/data/p1/deep", false},
		{"flows/data/{project_id}/**", "flows/data/p1/deep", true},
		{"flows/data/{project_id}/**", "flows/data/p1", true},
		{"flows/data/{project_id}/a/**", "flows/data/p1", false},
	} {
		pattern, err := ParsePathPattern(test.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := pattern.matches(target{secret: test.secret, anyKey: true}, "p1"); got != test.want {
			t.Errorf("%s with %s: %v", test.pattern, test.secret, got)
		}
	}
}

func TestABadPatternIsRefusedWithWhatToChange(t *testing.T) {
	for pattern, hint := range map[string]string{
		"":                                  "empty",
		"/flows/data/a/*":                   "slashes",
		"flows/data/a/*/":                   "slashes",
		"flows//data/a/*":                   "slashes",
		"flows/data/../*":                   `".."`,
		"flows/data/./*":                    `"."`,
		"flows/data/a*/key":                 "whole segment",
		"flows/data/***":                    "whole segment",
		"flows/data/**/key":                 "at the end",
		"flows/data/{project}/*":            "{project_id}",
		"flows/data/{{project_id}}/*":       "{project_id}",
		"flows/data/${project_id}/*":        "{project_id}",
		"flows/data/{PROJECT_ID}/*":         "{project_id}",
		"flows/data/{project_id/*":          "{project_id}",
		"a/data/{project_id}{project_id}/*": "once",
		"flows/{project_id}/*":              "data",
		"flows/data/{project_id}":           "the key is missing",
		"sys/**":                            "Vault's own",
		"auth/data/a/*":                     "Vault's own",
		"v1/flows/data/a/*":                 "v1",
		"https://vault/v1/flows/data/a/*":   "mount/data/path",
		"flows/data/a\u0085/*":              "control",
		"flows/data/" + strings.Repeat("a", 1024) + "/*": "1024",
	} {
		_, err := ParsePathPattern(pattern)
		switch {
		case err == nil:
			t.Errorf("%q is taken", pattern)
		case !strings.Contains(err.Error(), hint):
			t.Errorf("%q: %v does not say %q", pattern, err, hint)
		}
	}
}
