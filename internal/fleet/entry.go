package fleet

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// Invalidation is what sidecars are told to drop. Its fields mean what those of the API's
// InvalidateRequest mean.
type Invalidation struct {
	Connection, Path string
	RenewLogin       bool
}

// Bounds of an entry's fields: those of connection names and of references.
const (
	maxNameBytes = 64
	maxPathBytes = 1024
)

// The fields of an entry of the stream.
const (
	fieldConnection = "connection"
	fieldPath       = "path"
	fieldRenewLogin = "renew_login"
	fieldOrigin     = "origin"
	fieldID         = "id"
	// fieldStart marks an entry that asks for nothing: a stream begins with it, because the sidecars
	// need an entry to go on from.
	fieldStart = "start"
)

const yes = "1"

// entry is one entry of the stream.
type entry struct {
	what   Invalidation
	origin string // the sidecar that has written it
	start  bool
}

var errMalformed = errors.New("the entry is malformed")

func (e entry) fields() []any {
	if e.start {
		return []any{fieldStart, yes, fieldOrigin, e.origin}
	}
	renew := ""
	if e.what.RenewLogin {
		renew = yes
	}
	return []any{
		fieldConnection, e.what.Connection, fieldPath, e.what.Path, fieldRenewLogin, renew,
		fieldOrigin, e.origin, fieldID, randomID(),
	}
}

// parseEntry reads what anybody may have written. It knows no more fields than it needs.
func parseEntry(values map[string]any) (entry, error) {
	e := entry{origin: text(values[fieldOrigin]), start: text(values[fieldStart]) == yes}
	if e.start {
		return e, nil
	}
	connection, named := values[fieldConnection].(string)
	path, hasPath := values[fieldPath].(string)
	renew := text(values[fieldRenewLogin])
	e.what = Invalidation{Connection: connection, Path: path, RenewLogin: renew == yes}
	if !named || !hasPath || renew != "" && renew != yes || !e.what.isValid() {
		return entry{}, errMalformed
	}
	return e, nil
}

// isValid leaves the rules of references to the receiver.
func (i Invalidation) isValid() bool {
	return len(i.Connection) <= maxNameBytes && len(i.Path) <= maxPathBytes &&
		utf8.ValidString(i.Connection) && utf8.ValidString(i.Path)
}

func text(value any) string {
	s, _ := value.(string)
	return s
}

func randomID() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

// maxPrefixes is how many prefixes of one connection are dropped one by one when they come
// together. Each takes a look at every cached secret.
const maxPrefixes = 64

// coalesce drops the repeats out of what came together. Many prefixes of one connection become the
// connection.
func coalesce(all []Invalidation) []Invalidation {
	var distinct []Invalidation
	seen := make(map[Invalidation]bool, len(all))
	prefixes := map[string]int{}
	for _, one := range all {
		if seen[one] {
			continue
		}
		seen[one] = true
		distinct = append(distinct, one)
		if strings.HasSuffix(one.Path, "/") {
			prefixes[one.Connection]++
		}
	}
	for connection, count := range prefixes {
		if count > maxPrefixes {
			distinct = widen(distinct, connection)
		}
	}
	return distinct
}

// widen replaces what is about the connection by one that drops all of it.
func widen(all []Invalidation, connection string) []Invalidation {
	whole := Invalidation{Connection: connection}
	rest := slices.DeleteFunc(all, func(one Invalidation) bool {
		if one.Connection != connection {
			return false
		}
		whole.RenewLogin = whole.RenewLogin || one.RenewLogin
		return true
	})
	return append(rest, whole)
}
