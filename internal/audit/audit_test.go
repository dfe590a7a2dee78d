package audit_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/audit"
)

func open(t *testing.T, name string, hashPaths bool) *audit.Log {
	t.Helper()
	log, err := audit.Open(name, hashPaths)
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
	if err := log.Write(entries...); err != nil {
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

func TestTextsOfACallerAreBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	log := open(t, name, false)
	write(t, log, audit.Entry{
		Connection: strings.Repeat("é", 1000), Path: strings.Repeat("x", 1<<20),
		Project: "\xff\x00",
	})
	for _, entry := range lines(t, name) {
		if len(entry.Connection) > 1030 || len(entry.Path) > 1030 {
			t.Errorf("%d and %d bytes", len(entry.Connection), len(entry.Path))
		}
	}
}

func TestAWriteThatCannotBeMadeIsAnError(t *testing.T) {
	log := open(t, "/dev/full", false)
	if err := log.Write(audit.Entry{}); err == nil {
		t.Error("a full disk is no error")
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := log.Write(audit.Entry{}); err == nil {
		t.Error("a closed log takes entries")
	}
	if _, err := audit.Open(filepath.Join(t.TempDir(), "absent", "audit.log"), false); err == nil {
		t.Error("a directory that is absent is no error")
	}
}
