package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const doingRead = "read the secret"

// ErrNothing wraps ErrNotFound. It is Vault's 404 without a message, which KV version 1 and 2 both
// give for a missing secret.
var ErrNothing = &CallError{Sentinel: ErrNotFound, Doing: doingRead,
	Remedy: "check the path and the version: Vault has no such secret"}

// Read reads one version of the KV v2 secret at a Reference's Path; version 0 is the latest.
// Errors: ErrNotFound, ErrVersionDeleted, ErrVersionDestroyed, ErrPermissionDenied,
// ErrInvalidToken, ErrNotKVv2, ErrInvalidPath, ErrTooLarge; an outage (see Outage); ctx's own.
// After ErrNothing the mount may still be KV version 1: ask Mount.
func (c *Client) Read(ctx context.Context, token redact.String, path string,
	version uint32) (*Secret, error) {
	r := request{doing: doingRead, kind: CallRead, method: http.MethodGet, path: path,
		template: "{mount}/data/{path}", token: token}
	if version != 0 {
		r.params = url.Values{"version": {strconv.FormatUint(uint64(version), 10)}}
	}
	ans, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer ans.release()
	was := asked{path: path, honoured: c.Honours(token)}
	if !was.honoured && ans.knowsToken() {
		c.honoured.Store(&token)
	}
	return decideRead(ans, was)
}

// knowsToken reports whether the answer to a read proves that Vault knows the token: it got as far
// as its policies.
func (a *answer) knowsToken() bool {
	return a.isGood(CallRead) || a.status == http.StatusForbidden && !a.deniesPlainly() &&
		!a.knowsNoToken()
}

// Honours reports whether the token is the last one that Vault proved to know in answer to a Read.
func (c *Client) Honours(token redact.String) bool {
	last := c.honoured.Load()
	return last != nil && *last == token
}

// asked describes a read.
type asked struct {
	path string
	// honoured means that Vault has answered a read with the same token before.
	honoured bool
}

// decideRead turns Vault's answer to a read into a secret or a sentinel. No other code decides
// that.
func decideRead(ans *answer, was asked) (*Secret, error) {
	switch ans.status {
	case http.StatusOK:
		return decideFound(ans)
	case http.StatusNotFound:
		return nil, decideNotFound(ans)
	case http.StatusForbidden:
		return nil, decideForbidden(ans, was)
	case http.StatusBadRequest:
		return nil, &CallError{Sentinel: ErrInvalidPath, Doing: doingRead, Status: ans.status,
			Remedy: "check the mount and the path of the secret"}
	case http.StatusMethodNotAllowed:
		return nil, NotKVv2()
	}
	return nil, &CallError{Sentinel: ErrUnreachable, Doing: doingRead, Status: ans.status,
		Reach: ReachPath,
		Remedy: "check what answers at the address: Vault gives no such answer (HTTP " +
			ans.code() + ")"}
}

func decideFound(ans *answer) (*Secret, error) {
	found := ans.body.Data
	if ans.misshaped || found == nil || found.Metadata == nil || found.Metadata.Version == 0 {
		return nil, NotKVv2()
	}
	// Only version 1 sets a lease: its secret may look like one of version 2.
	if ans.body.LeaseDuration != 0 {
		return nil, NotKVv2()
	}
	if found.Data == nil {
		if err := found.Metadata.gone(time.Now()); err != nil {
			return nil, err
		}
	}
	texts, others, err := decodeFields(found.Data)
	if err != nil {
		return nil, NotKVv2()
	}
	return newSecret(texts, others, found.Metadata.Version, found.Metadata.CreatedTime,
		found.Metadata.deletedAt()), nil
}

func decideNotFound(ans *answer) error {
	if found := ans.body.Data; found != nil && found.Metadata != nil && found.Metadata.Version > 0 {
		if found.Metadata.Destroyed {
			return versionDestroyed()
		}
		return versionDeleted() // whatever its deletion_time says: Vault's clock may be ahead
	}
	switch {
	case ans.says("no handler for route"):
		return &CallError{Sentinel: ErrNotFound, Doing: doingRead, Status: ans.status,
			Remedy: "check the mount: no secrets engine is mounted at the beginning of the path"}
	case ans.says("namespace not found"):
		return &CallError{Sentinel: ErrNotKVv2, Doing: doingRead, Status: ans.status,
			Remedy: "check the namespace of the connection: Vault says that it does not exist"}
	case ans.body.Errors == nil, len(*ans.body.Errors) > 0:
		return NotKVv2()
	}
	return ErrNothing
}

// decideForbidden tells a token that Vault does not know from a read that it does not allow.
// OpenBao denies plainly when a token is gone, but also when the token is bound to another network.
// Only a token that is gone was honoured before.
func decideForbidden(ans *answer, was asked) error {
	if ans.knowsNoToken() || ans.deniesPlainly() && was.honoured {
		return &CallError{Sentinel: ErrInvalidToken, Doing: doingRead, Status: ans.status,
			Remedy: "log in anew"}
	}
	denied := &CallError{Sentinel: ErrPermissionDenied, Doing: doingRead, Status: ans.status,
		Remedy: "check the path, the mount above all; if it is right, give the role a policy " +
			"with path " +
			strconv.Quote(was.path) + ` { capabilities = ["read"] }`}
	if ans.deniesPlainly() {
		denied.Remedy = "check token_bound_cidrs of the role: Vault refuses the token before it " +
			"looks at its policies, as one from another network"
	}
	return denied
}

// gone returns why a version has no data: deleted or destroyed. It returns nil when the data is
// null and nobody deleted it.
func (m *kvMetadata) gone(now time.Time) error {
	switch {
	case m.Destroyed:
		return versionDestroyed()
	case m.DeletionTime != "" && !m.deletedAt().After(now):
		return versionDeleted()
	}
	return nil
}

// deletedAt is when the version's deletion comes, or came: delete_version_after sets a time ahead.
// The zero time means that none is set, or that it cannot be parsed.
func (m *kvMetadata) deletedAt() time.Time {
	at, err := time.Parse(time.RFC3339Nano, m.DeletionTime)
	if err != nil {
		return time.Time{}
	}
	return at
}

// decodeFields decodes the strings and the other values of a secret.
func decodeFields(raw map[string]json.RawMessage) (texts, others []field, err error) {
	for key, text := range raw {
		key = keysOfAll.share(key)
		if len(text) == 0 || text[0] != '"' {
			others = append(others, field{key: key, text: string(text)})
			continue
		}
		s, err := decodeString(text)
		if err != nil {
			return nil, nil, err
		}
		texts = append(texts, field{key: key, text: s})
	}
	return texts, others, nil
}

// decodeString decodes a JSON string, on a fast path when it has no escapes, as nearly always.
func decodeString(text json.RawMessage) (string, error) {
	inner := string(text[1 : len(text)-1])
	if !strings.Contains(inner, `\`) && isPrintableASCII(inner) {
		return inner, nil
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return "", errors.New("a value of the secret is not valid JSON")
	}
	return s, nil
}

func versionDestroyed() error {
	return &CallError{Sentinel: ErrVersionDestroyed, Doing: doingRead,
		Remedy: "write a new version of the secret, or ask for another version"}
}

func versionDeleted() error {
	return &CallError{Sentinel: ErrVersionDeleted, Doing: doingRead,
		Remedy: "undelete the version in Vault, write a new one, or ask for another version"}
}

// NotKVv2 is ErrNotKVv2 with what to do about it.
func NotKVv2() error {
	return &CallError{Sentinel: ErrNotKVv2, Doing: doingRead,
		Remedy: "name a path of a KV version 2 mount, mount/data/path; enable versioning on the " +
			"mount if it is version 1"}
}
