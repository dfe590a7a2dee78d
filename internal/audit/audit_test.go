package audit_test

import (
	"bufio"
	"encoding/json"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/secret-sidecar/secret-sidecar/internal/audit"
)

// open opens a log whose writes wait.
func open(t *testing.T, name string, hashPaths bool) *audit.Log {
	t.Helper()
	log, err := audit.Open(name, audit.Options{HashPaths: hashPaths, Required: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log
}

// lines reads the entries of a file, and fails the test for a line that is none.
func lines(t *testing.T, name string) []audit.Entry {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var entries []audit.Entry
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		var entry audit.Entry
		if err := json.Unmarshal(scanner.Bytes(), &entry); err != nil {
			t.Fatalf("%q: %v", scanner.Text(), err)
		}
		entries = append(entries, entry)
	}
	return entries
}

func write(t *testing.T, log *audit.Log, entries ...audit.Entry) {
	t.Helper()
	if err := log.Write(t.Context(), entries...); err != nil {
		t.Fatal(err)
	}
}

func TestEveryEntryIsALineOfAPrivateFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	log := open(t, name, false)
	entry := audit.Entry{
		Time:   time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)),
		Method: "Resolve", PID: 1, UID: 2, GID: 3, Connection: "prod", Project: "p",
		Path: "secret/data/a\nb/k", Version: 4, Source: "cache", Outcome: "ok",
		TraceID: "0af7651916cd43dd8448eb211c80319c",
	}
	write(t, log, entry, audit.Entry{Method: "BatchResolve", Outcome: "CALLER_NOT_ALLOWED"})
	got := lines(t, name)
	entry.Time = entry.Time.UTC()
	if len(got) != 2 || got[0] != entry || got[1].Outcome != "CALLER_NOT_ALLOWED" {
		t.Errorf("the file holds %+v", got)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestLinesOfManyWritersDoNotMix(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	log := open(t, name, false)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			for range 50 {
				write(t, log,
					audit.Entry{Path: strings.Repeat("x", 500)},
					audit.Entry{Path: strings.Repeat("y", 500)})
			}
		})
	}
	group.Wait()
	if got := len(lines(t, name)); got != 2000 {
		t.Errorf("%d lines, want 2000", got)
	}
}

func TestReopenGoesOnInANewFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	log := open(t, name, false)
	write(t, log, audit.Entry{Path: "one"})
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, log, audit.Entry{Path: "two"})
	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}
	write(t, log, audit.Entry{Path: "three"})
	old, now := lines(t, name+".1"), lines(t, name)
	if len(old) != 2 || len(now) != 1 || now[0].Path != "three" {
		t.Errorf("the rotated file holds %v, the new one %v", old, now)
	}
}

func TestHashedPathsAreAlikeForAlikePathsAndShowNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	log := open(t, name, true)
	same := audit.Entry{Path: "secret/data/a/k"}
	write(t, log, same, same, audit.Entry{Path: "secret/data/b", Key: "k"})
	got := lines(t, name)
	if got[0].Path != got[1].Path || got[0].Path == got[2].Path ||
		!strings.HasPrefix(got[2].Key, "sha256:") {
		t.Errorf("hashed: %+v", got)
	}
	if text, _ := os.ReadFile(name); strings.Contains(string(text), "secret/data") {
		t.Errorf("a path is readable: %s", text)
	}
}

// hostile are texts that would do harm in a line or a terminal, and what their lines must not hold.
var hostile = map[string]string{
	"control characters":   "\x00\x01\x1b[2J",
	"DEL":                  "\x7f",
	"NEL":                  "\u0085",
	"CSI":                  "\u009b2J",
	"right-to-left":        "\u202egnp.exe",
	"isolate":              "\u2066x\u2069",
	"zero width":           "a\u200bb\ufeffc",
	"line separator":       "\u2028\u2029",
	"tag characters":       "\U000e0041",
	"not UTF-8":            "\xff\xfe",
	"quotes and backslash": `"\","outcome":"ok`,
}

func TestALineShowsNothingThatATerminalWouldObey(t *testing.T) {
	for name, text := range hostile {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "audit.log")
			log := open(t, file, false)
			write(t, log, audit.Entry{Connection: text, Project: text, Path: text, Key: text,
				Address: text})
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range strings.TrimSuffix(string(raw), "\n") {
				if !unicode.IsPrint(r) {
					t.Errorf("the line holds %U: %q", r, raw)
				}
			}
			got := lines(t, file)
			want := strings.ToValidUTF8(text, "\ufffd\ufffd")
			if len(got) != 1 || got[0].Path != want || got[0].Key != want || got[0].Outcome != "" {
				t.Errorf("the line %q reads as %+v", raw, got)
			}
		})
	}
}

func TestALineIsBoundedWhateverACallerSends(t *testing.T) {
	for _, text := range append(slices.Collect(maps.Values(hostile)), "x", "é", "\\",
		"\U0001f511") {
		long := strings.Repeat(text, 1<<14)
		file := filepath.Join(t.TempDir(), "audit.log")
		log := open(t, file, false)
		full := audit.Entry{
			Time: time.Now(), Since: time.Now(), Method: "TestConnection", PID: math.MaxInt32,
			UID: math.MaxUint32,
			GID: math.MaxUint32, Version: math.MaxUint32, RenewLogin: true, Source: "vault",
			Outcome: "VAULT_PERMISSION_DENIED", Count: math.MaxUint64,
			TraceID:    strings.Repeat("a", 32),
			Connection: long, Project: long, Address: long, Path: long, Key: long,
		}
		write(t, log, full, full)
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 2*audit.MaxLine {
			t.Errorf("a line of %.8q… takes %d bytes, want %d at most", text, len(raw)/2,
				audit.MaxLine)
		}
		if got := lines(t, file); len(got) != 2 || !strings.HasSuffix(got[0].Path, "…") ||
			got[1].Count != full.Count {
			t.Errorf("%d lines, the first is %+v", len(got), got)
		}
	}
}

func TestAPathThatIsValidIsNotCut(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	log := open(t, name, false)
	path := "secret/data/" + strings.Repeat("ü", 506)
	write(t, log, audit.Entry{Path: path, Key: path})
	if got := lines(t, name); got[0].Path != path || got[0].Key != path {
		t.Errorf("got %+v", got[0])
	}
}

func TestWhatIsNoRegularFileIsRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	pipe, socket := filepath.Join(dir, "pipe"), filepath.Join(dir, "s")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		pipe: "is a pipe", link: "is a pipe", socket: "is a socket", dir: "is a directory",
		"/dev/full": "is a device",
		filepath.Join(dir, "absent", "audit.log"): "no such file",
	} {
		log, err := audit.Open(name, audit.Options{})
		if err == nil {
			_ = log.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func TestManyRefusalsAreTwoLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	log := open(t, name, false)
	refused := audit.Entry{
		Time: time.Now(), Method: "Resolve", UID: 1, PID: 7, Outcome: "CALLER_NOT_ALLOWED",
		Connection: "c", Project: "p", Path: strings.Repeat("x", 1000), Key: "k",
	}
	for range 10_000 {
		log.Refuse(refused, 1)
	}
	batch := refused
	batch.Method = "BatchResolve"
	log.Refuse(batch, 256)
	log.Refuse(batch, 256)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	counts := map[string][]uint64{}
	for _, line := range lines(t, name) {
		counts[line.Method] = append(counts[line.Method], line.Count)
		if line.UID != 1 || line.PID != 7 || line.Outcome != refused.Outcome ||
			line.Path+line.Connection+line.Project+line.Key != "" {
			t.Errorf("the line is %+v", line)
		}
	}
	want := map[string][]uint64{"Resolve": {0, 9_999}, "BatchResolve": {256, 256}}
	if !maps.EqualFunc(counts, want, slices.Equal[[]uint64]) {
		t.Errorf("the lines count %v, want %v", counts, want)
	}
}

func TestAClosedLogTakesNothing(t *testing.T) {
	log := open(t, filepath.Join(t.TempDir(), "audit.log"), false)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := log.Write(t.Context(), audit.Entry{}); err == nil {
		t.Error("a closed log takes entries")
	}
	if err := log.Reopen(); err == nil {
		t.Error("a closed log is opened again")
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}
