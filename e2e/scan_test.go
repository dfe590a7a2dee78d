package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

const scanEnabled = "scan: {enabled: true}\n"

func TestScanSaysWhereALogHoldsAValueThatWasGivenOut(t *testing.T) {
	t.Parallel()
	s := newSetupWith(t, vaulttest.Dev(t), scanEnabled)
	s.revealing("resolve", "secret/data/app/key")
	inJSON, err := json.Marshal(map[string]string{"auth": "key \"" + s.secret + "\"\n"})
	s.must(err)
	line := "GET /?q=1 Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+s.secret)) + "\n"
	log := line + string(inJSON) + "\nnothing here\n"

	done := s.run("scan", s.write("flow.log", log))
	second := len(line) + bytes.Index(inJSON, []byte(s.secret))
	lines := strings.Split(strings.TrimSpace(done.stdout), "\n")
	if done.code != 1 || len(lines) != 2 ||
		!strings.HasSuffix(lines[0], " secret/data/app/key prod") ||
		lines[1] != fmt.Sprintf("%d secret/data/app/key prod", second) {
		t.Errorf("it ended with %d: %s%s", done.code, done.stdout, done.stderr)
	}
	if !strings.Contains(done.stderr, "2 values found") {
		t.Errorf("it says %q", done.stderr)
	}
	if clean := s.run("scan", s.write("clean.log", "nothing here\n")); clean.code != 0 ||
		clean.stdout != "" || clean.stderr != "" {
		t.Errorf("of a clean log it says %d: %s%s", clean.code, clean.stdout, clean.stderr)
	}
	s.fails(2, []string{"no such file"}, "scan", s.path("none.log"))
	s.fails(2, []string{"one file"}, "scan")
}

func TestScanIsRefusedUnlessItIsTurnedOnAndARuleNamesIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ more, want string }{
		"off": {"", "SCAN_DISABLED"},
		"a rule for everything": {
			scanEnabled + "callers: [{uid: " + ownUID() + "}]\n", "CALLER_NOT_ALLOWED",
		},
		"a rule that names it": {
			scanEnabled + "callers: [{uid: " + ownUID() + ", methods: [Scan]}]\n", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSetupWith(t, vaulttest.Dev(t), test.more)
			log := s.write("flow.log", "nothing here\n")
			if test.want == "" {
				s.succeeds("scan", log)
				return
			}
			s.fails(1, []string{test.want}, "scan", log)
		})
	}
}
