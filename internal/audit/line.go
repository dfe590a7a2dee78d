package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxLine bounds a line, its end included, in bytes: whatever a caller sends, and however it has to
// be escaped.
const MaxLine = 3 << 10

// What bounds the texts of a line that a caller chooses, in bytes as they are written. A valid
// reference is never cut, unless it holds many characters that have to be escaped.
const (
	maxName    = 128 // of a connection
	maxProject = 192
	maxAddress = 192
	maxPath    = 1024
	maxKey     = 1024
)

// Entry is one secret that was asked for, one call of another method, or many refusals of one
// caller.
type Entry struct {
	// Time is when the request was answered.
	Time time.Time `json:"time"`
	// Since is when the first of Count refusals came; the zero time in every other entry.
	Since time.Time `json:"since,omitzero"`
	// Method is the RPC, for example "Resolve".
	Method string `json:"method"`
	// PID, UID and GID are the caller's, as the kernel recorded them when it connected. Of many
	// refusals they are the last one's.
	PID int32  `json:"pid"`
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// Connection and Project are what the request named. Where it named no connection, Connection
	// is the name of the only one.
	Connection string `json:"connection"`
	Project    string `json:"project,omitempty"`
	// Address is the host of the Vault that a TestConnection with a spec is about.
	Address string `json:"address,omitempty"`
	// Path is the reference. Key is the key where the request named it in its own field.
	Path string `json:"path"`
	Key  string `json:"key,omitempty"`
	// Version is the one that was answered, else the one that was asked for; 0 is the latest.
	Version uint32 `json:"version"`
	// RenewLogin says that an Invalidate asked for a new login.
	RenewLogin bool `json:"renew_login,omitempty"`
	// Source is "vault", "cache" or "stale"; empty when no value was answered.
	Source string `json:"source,omitempty"`
	// Outcome is "ok", "failed" for a test that found something wrong, or the reason of the error.
	Outcome string `json:"outcome"`
	// Count is how many refusals, or lost lines, the entry stands for; 0 is that it is no such
	// entry.
	Count uint64 `json:"count,omitempty"`
	// TraceID is the W3C trace id of the request; empty when it has none.
	TraceID string `json:"trace_id,omitempty"`
}

// appendLine appends the entry as a line of JSON, of MaxLine bytes at most.
func appendLine(line []byte, e *Entry, hashPaths bool) []byte {
	path, key := e.Path, e.Key
	if hashPaths {
		path, key = hash(path), hash(key)
	}
	line = appendTime(append(line, `{"time":`...), e.Time)
	if !e.Since.IsZero() {
		line = appendTime(append(line, `,"since":`...), e.Since)
	}
	line = appendText(append(line, `,"method":`...), e.Method, maxName)
	line = strconv.AppendInt(append(line, `,"pid":`...), int64(e.PID), 10)
	line = strconv.AppendUint(append(line, `,"uid":`...), uint64(e.UID), 10)
	line = strconv.AppendUint(append(line, `,"gid":`...), uint64(e.GID), 10)
	line = appendText(append(line, `,"connection":`...), e.Connection, maxName)
	line = appendOptional(line, `,"project":`, e.Project, maxProject)
	line = appendOptional(line, `,"address":`, e.Address, maxAddress)
	line = appendText(append(line, `,"path":`...), path, maxPath)
	line = appendOptional(line, `,"key":`, key, maxKey)
	line = strconv.AppendUint(append(line, `,"version":`...), uint64(e.Version), 10)
	if e.RenewLogin {
		line = append(line, `,"renew_login":true`...)
	}
	line = appendOptional(line, `,"source":`, e.Source, maxName)
	line = appendText(append(line, `,"outcome":`...), e.Outcome, maxName)
	if e.Count > 0 {
		line = strconv.AppendUint(append(line, `,"count":`...), e.Count, 10)
	}
	line = appendOptional(line, `,"trace_id":`, e.TraceID, maxName)
	return append(line, '}', '\n')
}

func appendTime(line []byte, t time.Time) []byte {
	return append(t.UTC().AppendFormat(append(line, '"'), time.RFC3339Nano), '"')
}

func appendOptional(line []byte, name, text string, most int) []byte {
	if text == "" {
		return line
	}
	return appendText(append(line, name...), text, most)
}

// appendText appends the text as a JSON string. What it takes beyond most bytes is cut, and "…"
// says so. Whoever reads the line in a terminal sees each character where it stands: what is not
// printed, or turns the direction of what follows, is escaped.
func appendText(line []byte, text string, most int) []byte {
	line = append(line, '"')
	end := len(line) + most
	for _, r := range text {
		before := len(line)
		line = appendRune(line, r)
		if len(line) > end {
			line = append(line[:before], "…"...)
			break
		}
	}
	return append(line, '"')
}

func appendRune(line []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(line, '\\', byte(r))
	case unicode.IsPrint(r):
		return utf8.AppendRune(line, r)
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return appendEscape(appendEscape(line, high), low)
	}
	return appendEscape(line, r)
}

func appendEscape(line []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(line, '\\', 'u', digits[r>>12&0xf], digits[r>>8&0xf], digits[r>>4&0xf],
		digits[r&0xf])
}

func hash(text string) string {
	if text == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:16])
}
