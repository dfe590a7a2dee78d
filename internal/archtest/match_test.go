package archtest

import "testing"

func TestPatternsMatchWholeSegments(t *testing.T) {
	cases := []struct {
		name, path, pattern string
		want                bool
	}{
		{"a plain pattern is the path itself", "a.b/c", "a.b/c", true},
		{"a plain pattern is nothing below it", "a.b/c/d", "a.b/c", false},
		{"an open pattern is what it begins with", "a.b/c", "a.b/c/...", true},
		{"an open pattern is what lies below it", "a.b/c/d/e", "a.b/c/...", true},
		{"an open pattern is no longer name", "a.b/cd", "a.b/c/...", false},
		{"dot and slash are the module", module + "/vault", "./vault", true},
		{"three dots alone are everything", "a.b/c", "...", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := matches(c.path, []string{c.pattern}); got != c.want {
				t.Errorf("matches(%q, %q) = %v", c.path, c.pattern, got)
			}
		})
	}
}

func TestAPackageBelongsToTheLongestRoom(t *testing.T) {
	for path, want := range map[string]string{
		"vault": "vault", "vault/login": "vault/login", "internal/redact": "internal/redact",
		"internal/telemetry": "internal", "gen/secretsidecar/v1": "gen", "vaults": "",
	} {
		if room, _ := roomOf(module + "/" + path); room != want {
			t.Errorf("%s is in room %q, want %q", path, room, want)
		}
	}
}
