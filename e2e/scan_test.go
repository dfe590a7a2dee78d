package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
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

// The log is twice what both processes may grow by.
func TestScanningALongLogTakesLittleMemory(t *testing.T) {
	t.Parallel()
	s := newSetupWith(t, vaulttest.Dev(t), scanEnabled)
	s.revealing("resolve", "secret/data/app/key")
	const size, most = 128 << 20, 64 << 20
	scan := func(log io.Reader) (outcome, int64) {
		command := exec.Command(binary, "scan", "-")
		command.Stdin = log
		done := s.execute(command)
		usage, ok := command.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			t.Fatal("the kernel does not say what the command has taken")
		}
		return done, usage.Maxrss << 10
	}
	_, least := scan(strings.NewReader("nothing here\n"))
	before := s.memory("VmRSS")
	// Each line begins like the value, at three places of it.
	line := []byte(strings.Repeat(s.secret[:20]+` %41\u0041 `, 3) + "\n")
	log := io.MultiReader(io.LimitReader(repeated(line), size), strings.NewReader(s.secret))
	done, peak := scan(log)
	if want := fmt.Sprintf("%d secret/data/app/key prod\n", size); done.stdout != want {
		t.Errorf("it ended with %d and says %q, want %q: %s", done.code, done.stdout, want, done.stderr)
	}
	if grown := s.memory("VmHWM") - before; grown > most {
		t.Errorf("the sidecar took %d MB more", grown>>20)
	}
	if grown := peak - least; grown > most {
		t.Errorf("the command took %d MB more than for a short log", grown>>20)
	}
}

// repeated reads a text again and again.
func repeated(text []byte) io.Reader {
	many := bytes.Repeat(text, 1+(1<<16)/len(text))
	return &endless{text: many}
}

// endless is a text without an end.
type endless struct {
	text []byte
	at   int
}

// Read implements io.Reader.
func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text[e.at:])
	e.at = (e.at + n) % len(e.text)
	return n, nil
}
