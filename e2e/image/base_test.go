package image_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeBuildah keeps the labels of the one image that it has, and a line for each image that is
// committed.
const fakeBuildah = `#!/usr/bin/env bash
shift 6 # its storage
case $1 in
from) echo container ;;
mount) mkdir -p "$STATE/root" && echo "$STATE/root" ;;
umount) rm -rf "$STATE/root" ;;
config) echo "label=$3" >"$STATE/labels" ;;
commit) echo "$4" >>"$STATE/commits" ;;
images) grep -qxF "$4" "$STATE/labels" && echo image || : ;;
esac
`

// fakeGo is the Go of the base, with next to nothing in it.
const fakeGo = `#!/usr/bin/env bash
mkdir -p "$STATE/goroot"
case $2 in GOROOT) echo "$STATE/goroot" ;; GOVERSION) echo "$VERSION_OF_GO" ;; esac
`

// base is a machine on which the stand-in for the base image is made.
type base struct {
	t     *testing.T
	state string
	goes  string // its version of Go
}

func newBase(t *testing.T) *base {
	t.Helper()
	b := &base{t: t, state: t.TempDir(), goes: "go1.26.1"}
	b.program("buildah", fakeBuildah)
	b.program("go", fakeGo)
	b.program("busybox", "static, as ldd sees it")
	b.write("certificates", "ours")
	b.write("labels", "")
	return b
}

func (b *base) program(name, text string) {
	b.t.Helper()
	b.write(name, text)
	must(b.t, os.Chmod(filepath.Join(b.state, name), 0o755)) // #nosec G302 -- a program
}

func (b *base) write(name, text string) {
	b.t.Helper()
	must(b.t, os.WriteFile(filepath.Join(b.state, name), []byte(text), 0o600))
}

// make runs the script, and returns what it says.
func (b *base) make() (string, error) {
	b.t.Helper()
	script := exec.CommandContext(b.t.Context(), "../../scripts/image-base.sh",
		filepath.Join(b.state, "storage"))
	script.Env = append(os.Environ(), "PATH="+b.state+":"+os.Getenv("PATH"), "STATE="+b.state,
		"VERSION_OF_GO="+b.goes,
		"SSL_CERT_FILE="+filepath.Join(b.state, "certificates"))
	out, err := script.CombinedOutput()
	return string(out), err
}

// requireMade runs the script, and checks how many images were made until then.
func (b *base) requireMade(times int) {
	b.t.Helper()
	if out, err := b.make(); err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	commits, err := os.ReadFile(filepath.Join(b.state, "commits"))
	must(b.t, err)
	if made := strings.Count(string(commits), "\n"); made != times {
		b.t.Errorf("the base was made %d times, want %d", made, times)
	}
}

func TestTheBaseIsMadeOnceForWhatIsInIt(t *testing.T) {
	for name, change := range map[string]func(b *base){
		"busybox":      func(b *base) { b.program("busybox", "another one") },
		"certificates": func(b *base) { b.write("certificates", "theirs") },
		"Go":           func(b *base) { b.goes = "go1.26.2" },
	} {
		t.Run("another "+name, func(t *testing.T) {
			b := newBase(t)
			b.requireMade(1)
			b.requireMade(1)
			change(b)
			b.requireMade(2)
			b.requireMade(2)
		})
	}
}

func TestABusyboxThatNeedsACLibraryIsNotPutIntoTheBase(t *testing.T) {
	b := newBase(t)
	bash, err := exec.LookPath("bash")
	must(t, err)
	dynamic, err := os.ReadFile(bash) // #nosec G304 -- a program of this machine
	must(t, err)
	b.program("busybox", string(dynamic))
	if out, err := b.make(); err == nil ||
		!strings.Contains(out, "apt-get install busybox-static") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(b.state, "commits")); err == nil {
		t.Error("a base was made")
	}
}

// The continuous integration asks the same script, and installs a static one.
func TestCIAsksForAStaticBusybox(t *testing.T) {
	run, err := os.ReadFile("../../.ci/run")
	must(t, err)
	if !strings.Contains(string(run),
		"\nscripts/image-static.sh busybox || missing+=(busybox-static)\n") {
		t.Error("another busybox will do")
	}
	program := filepath.Join(directory(t), "built", "amd64", "secret-sidecar")
	if out, err := exec.CommandContext(t.Context(), "../../scripts/image-static.sh",
		program).CombinedOutput(); err != nil {
		t.Errorf("a static program is not taken for one: %v\n%s", err, out)
	}
}
