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

// maxRetryAfter bounds what a Retry-After header can ask for.
const maxRetryAfter = time.Minute

// answer is what Vault said to one request: an HTTP status, and the body, decoded once.
type answer struct {
	status int
	header http.Header
	text   []byte
	// release gives back the memory that is taken for the answer. Call it once.
	release func()
	body    body
	// broken says that Vault sends no such answer to the call; misshaped that the body is a JSON object of Vault's, but that
	// a part of it has another type than a KV version 2 secret, a login or the like has.
	broken, misshaped bool
}

// body is every part of Vault's answers that decides something. An answer of Vault's has at least one of those that
// are pointers, which tells it from a gateway's own JSON.
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

// nullableStrings keeps apart what is there from what is not.
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

// data is the `data` of any answer that is looked at.
type data struct {
	// Of a secret.
	Data     map[string]json.RawMessage `json:"data"`
	Metadata *kvMetadata                `json:"metadata"`
	// Of sys/internal/ui/mounts.
	Path    string            `json:"path"`
	Type    string            `json:"type"`
	Options map[string]string `json:"options"`
	// Of sys/wrapping/lookup and sys/wrapping/unwrap.
	CreationPath string `json:"creation_path"`
	SecretID     string `json:"secret_id"`
	// Of a secret_id's lookup.
	ExpirationTime time.Time `json:"expiration_time"`
}

type kvMetadata struct {
	CreatedTime  time.Time `json:"created_time"`
	DeletionTime string    `json:"deletion_time"`
	Destroyed    bool      `json:"destroyed"`
	Version      uint32    `json:"version"`
}

// decode fills in body from text, and decides whether it can be Vault's answer to a call of the kind.
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

// mayBeEmpty reports whether Vault itself sends the status without a body: 204 where there is nothing to tell, and 400
// for a path with a character that cannot be printed.
func (a *answer) mayBeEmpty(kind CallKind) bool {
	switch a.status {
	case http.StatusNoContent:
		return kind == CallRevoke || kind == CallLookup || kind == CallUnwrap
	case http.StatusBadRequest:
		return kind == CallRead || kind == CallMount
	}
	return false
}

// isVaults reports whether the JSON has what stands in each of Vault's answers with the status, and whether the status is
// one of Vault's.
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

// refusals are the statuses below 500 with which Vault refuses.
var refusals = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
	http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, 472, 473, 474}

// isGood says that Vault did what it was asked, or that what was to be read is not there; a refusal is not.
func (a *answer) isGood(kind CallKind) bool {
	return a.status < http.StatusBadRequest || a.status == http.StatusNotFound && kind == CallRead
}

// mentions reports whether one of Vault's errors holds one of the phrases. Some of Vault's errors hold the path that was
// asked for: says and endsIn cannot be deceived by it.
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

// knowsNoToken reports whether Vault says that there is no such token.
func (a *answer) knowsNoToken() bool { return a.mentions("invalid token", "bad token") }

// deniesPlainly reports whether Vault denies without asking a policy, whose "no" is one of "1 error occurred". Vault does
// so when the token is bound to other networks, and OpenBao when it does not know the token, too.
func (a *answer) deniesPlainly() bool {
	return a.status == http.StatusForbidden && a.says("permission denied")
}

func (a *answer) code() string { return strconv.Itoa(a.status) }

// retryAfter reads the Retry-After header: seconds or a date; 0 when there is none.
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
