package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter caps a Retry-After header: a proxy's mistake must not silence a connection for
// hours.
const maxRetryAfter = time.Minute

// answer is what Vault said to one request: an HTTP status, and the body, decoded once.
type answer struct {
	status int
	header http.Header
	text   []byte
	// release gives back the memory that is taken for the answer. Call it once.
	release func()
	body    body
	// broken means that Vault sends no such answer to this call. misshaped means that the body is a
	// JSON object of Vault's in which a part has the wrong type for a KV version 2 secret, a login
	// or the like.
	broken, misshaped bool
}

// body holds the parts of an answer that decide something. Every answer of Vault's has at least one
// of the pointers, which tells it from a gateway's own JSON.
type body struct {
	RequestID     *string         `json:"request_id"`
	LeaseDuration int64           `json:"lease_duration"`
	Data          *data           `json:"data"`
	Auth          *grantedAuth    `json:"auth"`
	WrapInfo      *wrapInfo       `json:"wrap_info"`
	Initialized   *bool           `json:"initialized"` // sys/health
	Sealed        bool            `json:"sealed"`
	Version       string          `json:"version"`
	Errors        *[]string       `json:"errors"`
	Warnings      nullableStrings `json:"warnings"`
}

// nullableStrings records that a field is present, even as null.
type nullableStrings struct {
	there bool
	texts []string
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *nullableStrings) UnmarshalJSON(text []byte) error {
	n.there = true
	return json.Unmarshal(text, &n.texts)
}

type wrapInfo struct {
	CreationPath string `json:"creation_path"`
}

// data is the `data` of any answer that we read.
type data struct {
	// From a secret.
	Data     map[string]json.RawMessage `json:"data"`
	Metadata *kvMetadata                `json:"metadata"`
	// From sys/internal/ui/mounts.
	Path    string            `json:"path"`
	Type    string            `json:"type"`
	Options map[string]string `json:"options"`
	// From sys/wrapping/lookup and sys/wrapping/unwrap.
	CreationPath string `json:"creation_path"`
	SecretID     string `json:"secret_id"`
	// From the lookup of a secret_id.
	ExpirationTime time.Time `json:"expiration_time"`
}

type kvMetadata struct {
	CreatedTime  time.Time `json:"created_time"`
	DeletionTime string    `json:"deletion_time"`
	Destroyed    bool      `json:"destroyed"`
	Version      uint32    `json:"version"`
}

// decode parses text into body, and decides whether Vault can have sent it in answer to this kind
// of call.
func (a *answer) decode(kind CallKind) {
	if len(bytes.TrimSpace(a.text)) == 0 {
		a.broken = !a.mayBeEmpty(kind)
		return
	}
	err := json.Unmarshal(a.text, &a.body)
	_, noJSON := errors.AsType[*json.SyntaxError](err)
	a.misshaped = err != nil
	a.broken = noJSON || !a.isVaults()
}

// mayBeEmpty reports whether Vault itself sends this status without a body: 204 when there is
// nothing to say, and 400 for a path with an unprintable character.
func (a *answer) mayBeEmpty(kind CallKind) bool {
	switch a.status {
	case http.StatusNoContent:
		return kind == CallRevoke || kind == CallLookup || kind == CallUnwrap
	case http.StatusBadRequest:
		return kind == CallRead || kind == CallMount
	}
	return false
}

// isVaults reports whether the JSON has the fields of every Vault answer, and the status is one
// that Vault uses.
func (a *answer) isVaults() bool {
	b := &a.body
	isWhole := b.RequestID != nil && b.Warnings.there
	switch {
	case b.Initialized != nil:
		return true
	case a.status < http.StatusBadRequest:
		return isWhole || b.Data != nil || b.Auth != nil || b.WrapInfo != nil
	case a.status < http.StatusInternalServerError && !slices.Contains(refusals, a.status):
		return false
	}
	isVersion := b.Data != nil && b.Data.Metadata != nil && b.Data.Metadata.Version > 0
	return isWhole || isVersion || b.Errors != nil && *b.Errors != nil && !a.misshaped
}

// refusals are the statuses below 500 that Vault uses to refuse.
var refusals = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound,
	http.StatusMethodNotAllowed, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge,
	http.StatusTooManyRequests, 472, 473, 474}

// isGood reports whether Vault did what it was asked, or said that the secret does not exist. A
// refusal is not good.
func (a *answer) isGood(kind CallKind) bool {
	return a.status < http.StatusBadRequest || a.status == http.StatusNotFound && kind == CallRead
}

// mentions reports whether one of Vault's errors contains one of the phrases. Some errors quote the
// requested path, so a caller could plant a phrase: says and endsIn cannot be fooled that way.
func (a *answer) mentions(phrases ...string) bool {
	return a.hasError(strings.Contains, phrases)
}

// says reports whether one of Vault's errors begins with one of the phrases.
func (a *answer) says(phrases ...string) bool {
	return a.hasError(strings.HasPrefix, phrases)
}

// endsIn reports whether one of Vault's errors ends in one of the phrases.
func (a *answer) endsIn(phrases ...string) bool {
	return a.hasError(strings.HasSuffix, phrases)
}

func (a *answer) hasError(has func(text, phrase string) bool, phrases []string) bool {
	return a.body.Errors != nil && slices.ContainsFunc(*a.body.Errors, func(text string) bool {
		return slices.ContainsFunc(phrases, func(phrase string) bool { return has(text, phrase) })
	})
}

// knowsNoToken reports whether Vault says that the token does not exist.
func (a *answer) knowsNoToken() bool { return a.mentions("invalid token", "bad token") }

// deniesPlainly reports whether Vault denies without having asked a policy; a policy's denial
// counts "1 error occurred". Vault denies plainly when the token is bound to other networks, and
// OpenBao also when it does not know the token.
func (a *answer) deniesPlainly() bool {
	return a.status == http.StatusForbidden && a.says("permission denied")
}

func (a *answer) code() string { return strconv.Itoa(a.status) }

// retryAfter parses the Retry-After header, which holds seconds or a date. 0 means that there is
// none.
func retryAfter(header http.Header) time.Duration {
	text := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if date, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(date), 0), maxRetryAfter)
	}
	return 0
}
