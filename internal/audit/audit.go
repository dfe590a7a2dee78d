// Package audit writes down who asked for which secret. It never sees a value.
//
// The sidecar needs a log of its own because Vault's audit log names the sidecar alone, and sees
// one read where many callers asked. Each secret that is asked for is one line of JSON in a file
// that only grows:
//
//   - A Write that returns no error has put all of its lines into the file. So the caller can
//     refuse to answer what cannot be written down.
//   - A full disk can leave half a line behind. The next Write ends it first, so that every later
//     line can still be read.
//   - The file belongs to an administrator who rotates it: Reopen follows the name.
//   - A caller chooses some of the texts. They are cut, so that no caller decides how fast the file
//     grows.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// maxText bounds each text that a caller chooses, in bytes.
const maxText = 1024

// Entry is one secret that was asked for.
type Entry struct {
	// Time is when the request was answered.
	Time time.Time `json:"time"`
	// Method is the RPC, for example "Resolve".
	Method string `json:"method"`
	// PID, UID and GID are the caller's, as the kernel recorded them when it connected.
	PID int32  `json:"pid"`
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// Connection and Project are what the request named. Where it named no connection, Connection
	// is the name of the only one.
	Connection string `json:"connection"`
	Project    string `json:"project,omitempty"`
	// Path is the reference. Key is the key where the request named it in its own field.
	Path string `json:"path"`
	Key  string `json:"key,omitempty"`
	// Version is the one that was answered, else the one that was asked for; 0 is the latest.
	Version uint32 `json:"version"`
	// Source is "vault", "cache" or "stale"; empty when no value was answered.
	Source string `json:"source,omitempty"`
	// Outcome is "ok", or the reason of the error.
	Outcome string `json:"outcome"`
	// TraceID is the W3C trace id of the request; empty when it has none.
	TraceID string `json:"trace_id,omitempty"`
}

// Log is an audit log in a file. It is safe for concurrent use. Close it.
type Log struct {
	name      string
	hashPaths bool

	mu   sync.Mutex
	file *os.File // guarded by mu; nil after Close
	torn bool     // guarded by mu: the file ends in the middle of a line
}

// Open opens the file for appending, and creates it with mode 0600 when it is absent. With
// hashPaths, paths and keys are written as the first 128 bits of their SHA-256. Equal ones can be
// recognised, and whoever guesses a path can confirm it.
func Open(name string, hashPaths bool) (*Log, error) {
	l := &Log{name: name, hashPaths: hashPaths}
	if err := l.Reopen(); err != nil {
		return nil, err
	}
	return l, nil
}

// Reopen opens the file by its name again, after logrotate has renamed it. After an error the old
// file stays in use.
func (l *Log) Reopen() error {
	file, err := os.OpenFile(l.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.file
	l.file, l.torn = file, false
	if old == nil {
		return nil
	}
	return old.Close()
}

// Close closes the file. Later calls of Write fail.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	old := l.file
	l.file = nil
	return old.Close()
}

// Write appends a line for each entry, in one write. After an error none, some or all of them are
// in the file.
func (l *Log) Write(entries ...Entry) error {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, entry := range entries {
		if err := encoder.Encode(l.bounded(entry)); err != nil {
			return fmt.Errorf("encode an audit entry: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return errors.New("write to the audit log: it is closed")
	}
	if l.torn {
		if _, err := l.file.WriteString("\n"); err != nil {
			return fmt.Errorf("write to the audit log: %w", err)
		}
		l.torn = false
	}
	if n, err := l.file.Write(lines.Bytes()); err != nil {
		l.torn = n > 0
		return fmt.Errorf("write to the audit log: %w", err)
	}
	return nil
}

// bounded returns the entry as it is written: hashed where that is asked for, and cut.
func (l *Log) bounded(entry Entry) Entry {
	entry.Time = entry.Time.UTC()
	if l.hashPaths {
		entry.Path, entry.Key = hash(entry.Path), hash(entry.Key)
	}
	for _, text := range []*string{&entry.Connection, &entry.Project, &entry.Path, &entry.Key} {
		*text = cut(*text)
	}
	return entry
}

func hash(text string) string {
	if text == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:16])
}

func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}
