//go:build !race

package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// The log is twice what each process may grow by. The sidecar's peak was 61 MB higher with a log of
// 96 MB, and 60 MB with one of 384 MB.
func TestScanningALongLogTakesLittleMemory(t *testing.T) {
	t.Parallel()
	s := newSetupWith(t, vaulttest.Dev(t), scanEnabled)
	s.revealing("resolve", "secret/data/app/key")
	const size, most = 192 << 20, 96 << 20
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
