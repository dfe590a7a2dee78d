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
	body   body
	// broken says that the body is not the JSON object that Vault sends; misshaped that it is one, but that a part of
	// it has another type than a KV version 2 secret, a login or the like has.
	broken, misshaped bool
}

// body is every part of Vault's answers that decides something. An answer of Vault's has at least one of those that
// are pointers, which tells it from a gateway's own JSON.
type body struct {
	RequestID   *string         `json:"request_id"`
	Data        *data           `json:"data"`
	Auth        *grantedAuth    `json:"auth"`
	WrapInfo    *wrapInfo       `json:"wrap_info"`
	Initialized *bool           `json:"initialized"` // sys/health
	Sealed      bool            `json:"sealed"`
	Version     string          `json:"version"`
	Errors      *[]string       `json:"errors"`
	Warnings    nullableStrings `json:"warnings"`
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

// decode fills in body from text.
func (a *answer) decode() {
	if len(bytes.TrimSpace(a.text)) == 0 {
		a.broken = a.status != http.StatusNoContent && a.status != http.StatusBadRequest
		return
	}
	err := json.Unmarshal(a.text, &a.body)
	_, noJSON := errors.AsType[*json.SyntaxError](err)
	a.misshaped = err != nil
	a.broken = noJSON || !a.isVaults()
}

// isVaults reports whether the JSON has what stands in each of Vault's answers with the status.
func (a *answer) isVaults() bool {
	b := &a.body
	if a.status >= http.StatusBadRequest {
		return b.Errors != nil && *b.Errors != nil || b.Data != nil || b.Warnings.there || b.Initialized != nil
	}
	return b.RequestID != nil || b.Data != nil || b.Auth != nil || b.WrapInfo != nil || b.Initialized != nil
}

// isGood says that Vault did what it was asked, or that what was to be read is not there; a refusal is not.
func (a *answer) isGood(kind CallKind) bool {
	return a.status < http.StatusBadRequest || a.status == http.StatusNotFound && kind == CallRead
}

// mentions reports whether one of Vault's errors holds the phrase.
func (a *answer) mentions(phrase string) bool {
	return a.body.Errors != nil && slices.ContainsFunc(*a.body.Errors, func(text string) bool {
		return strings.Contains(text, phrase)
	})
}

// outage returns the outage that an answer reports, and nil for an answer of a Vault that works. It is the one place
// that decides: docs/reliability.md has the table. A proxy is that of the environment, empty without one.
func (a *answer) outage(doing, proxy string) error {
	out := a.classify(proxy)
	if out == nil {
		return nil
	}
	out.Doing, out.Status = doing, a.status
	if out.Sentinel == nil {
		out.Sentinel = ErrUnreachable
	}
	out.RetryAfter = retryAfter(a.header)
	return out
}

func (a *answer) classify(proxy string) *CallError {
	switch {
	case a.status == http.StatusTooManyRequests:
		return &CallError{Sentinel: ErrRateLimited, Reach: ReachPath, Remedy: "wait, or raise the rate limit quota in Vault"}
	case a.status >= 300 && a.status < 400:
		return &CallError{Reach: ReachNode, Remedy: "the node that answered redirects to another one (HTTP " + a.code() + "), which is not " +
			"followed: after an election this passes by itself; if it stays, set the address to Vault itself, with its scheme and port"}
	case a.broken:
		return a.notVaults(proxy)
	case a.status >= 500, a.status == http.StatusPreconditionFailed, a.status == 472, a.status == 473:
		return a.serverError()
	case a.status == http.StatusBadRequest:
		return a.passing()
	}
	return nil
}

// serverError is an answer of Vault's own that it cannot do what it is asked.
func (a *answer) serverError() *CallError {
	switch {
	case a.status == http.StatusServiceUnavailable && a.saysSealed():
		return &CallError{Sentinel: ErrSealed, Reach: ReachNode, Remedy: "unseal Vault: vault operator unseal"}
	case a.status == http.StatusPreconditionFailed:
		return &CallError{Reach: ReachPath, Remedy: "the node of Vault that answers lags behind the others (HTTP 412): wait, and look at its replication"}
	case a.status == 472, a.status == 473, a.mentions("not active"), a.mentions("no leader"), a.mentions("standby"):
		return &CallError{Reach: ReachNode, Remedy: "the node of Vault that answers does not lead, and knows no leader (HTTP " + a.code() +
			"): wait for the election, and look at the state of the cluster: vault operator raft list-peers"}
	}
	return &CallError{Reach: ReachPath, Remedy: "Vault answers with an error of its own (HTTP " + a.code() + "): look into Vault's log"}
}

// saysSealed reports whether Vault itself says that it is sealed or not initialised.
func (a *answer) saysSealed() bool {
	return a.mentions("ealed") || a.mentions("not initialized") || a.body.Initialized != nil && (a.body.Sealed || !*a.body.Initialized)
}

// passing is an answer with which Vault refuses a good request for a moment, and nil for any other.
func (a *answer) passing() *CallError {
	switch {
	case a.mentions("ersioned data"), a.mentions("pgrading from non-versioned"):
		// On the primary and on a secondary: "Upgrading from non-versioned to versioned data. …", "Waiting for the
		// primary to upgrade from non-versioned to versioned data. …".
		return &CallError{Reach: ReachPath, Remedy: "wait until Vault has upgraded the mount to version 2"}
	case a.mentions("replication"), a.mentions("DR secondary"), a.mentions("ecovery mode"):
		return &CallError{Reach: ReachNode, Remedy: "the Vault that answers is a secondary for disaster recovery, or in recovery mode, and serves " +
			"nobody: send requests to the primary, or promote it"}
	}
	return nil
}

// notVaults says what to do about an answer that is not Vault's.
func (a *answer) notVaults(proxy string) *CallError {
	out := &CallError{Reach: ReachPath}
	who := "a gateway, a mesh or a load balancer in front of Vault answers"
	if proxy != "" {
		who = "the proxy of the environment, " + proxy + ", or a gateway behind it answers"
	}
	switch {
	case a.status == http.StatusBadRequest && bytes.Contains(a.text, []byte("HTTP request to an HTTPS server")):
		out.Remedy = "the server speaks TLS: write the address with https://"
	case a.status == http.StatusProxyAuthRequired:
		out.Remedy = "the proxy " + proxy + " wants credentials (HTTP 407): put them into HTTPS_PROXY, or add Vault's host to NO_PROXY"
	case a.status >= 500:
		out.Remedy = who + " in its place (HTTP " + a.code() + "): look at that, and whether it reaches Vault"
	case proxy != "" && a.status >= 400:
		out.Remedy = who + " (HTTP " + a.code() + "): let it pass, or add Vault's host to NO_PROXY"
	default:
		out.Remedy = "what answers at the address is not Vault, or a proxy in front of it (HTTP " + a.code() + "): check the address and the proxy"
	}
	return out
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
