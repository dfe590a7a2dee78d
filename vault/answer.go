package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unique"
)

const doingRead = "read the secret"

var (
	// errInvalidToken: Vault does not know the token, or no longer.
	errInvalidToken = errors.New("invalid token")
	// errPlainNotFound: Vault's 404 without a word, which KV version 1 and 2 both give for a missing secret.
	errPlainNotFound = errors.New("plain not found")
)

// kvAnswer is the part of Vault's answers that decides what a read has found.
type kvAnswer struct {
	Data     json.RawMessage `json:"data"`
	Errors   []string        `json:"errors"`
	Warnings []string        `json:"warnings"`
}

// kvData is the `data` of a KV v2 answer.
type kvData struct {
	Data     json.RawMessage `json:"data"`
	Metadata *kvMetadata     `json:"metadata"`
}

type kvMetadata struct {
	CreatedTime  time.Time `json:"created_time"`
	DeletionTime string    `json:"deletion_time"`
	Destroyed    bool      `json:"destroyed"`
	Version      uint32    `json:"version"`
}

// decideRead turns Vault's answer to a read into the secret or the sentinel that it means; it is the only
// place that does. Two of its errors need more than the answer to decide: errInvalidToken, errPlainNotFound.
func decideRead(ans answer) (*Secret, error) {
	var body kvAnswer
	if err := decode(ans.body, &body); err != nil {
		return nil, unreachable(doingRead, "check what answers at the address: it is not Vault's JSON", err)
	}
	switch ans.status {
	case http.StatusOK:
		return decideFound(body)
	case http.StatusNotFound:
		return nil, decideNotFound(body)
	case http.StatusForbidden:
		if mentions(body.Errors, "invalid token") {
			return nil, errInvalidToken
		}
		return nil, permissionDenied()
	case http.StatusBadRequest:
		return nil, &CallError{Sentinel: ErrInvalidPath, Doing: doingRead,
			Remedy: "check the mount and the path of the secret"}
	case http.StatusMethodNotAllowed:
		return nil, notKVv2()
	}
	return nil, unreachable(doingRead, "check what answers at the address: Vault gives no such answer",
		statusError(ans.status))
}

func decideFound(body kvAnswer) (*Secret, error) {
	data, ok := versioned(body)
	if !ok {
		return nil, notKVv2()
	}
	metadata := data.Metadata
	var texts, others []field
	var err error
	if isNull(data.Data) {
		err = gone(metadata, isPast(metadata.DeletionTime))
	} else if texts, others, err = decodeFields(data.Data); err != nil {
		err = notKVv2()
	}
	if err != nil {
		return nil, err
	}
	return newSecret(texts, others, metadata.Version, metadata.CreatedTime, parseDeletion(metadata.DeletionTime)), nil
}

func decideNotFound(body kvAnswer) error {
	if data, ok := versioned(body); ok {
		// Vault says that the version is gone. By our clock its deletion may be still to come.
		if err := gone(data.Metadata, data.Metadata.DeletionTime != ""); err != nil {
			return err
		}
	}
	switch {
	case mentions(body.Errors, "no handler for route"):
		return &CallError{Sentinel: ErrNotFound, Doing: doingRead,
			Remedy: "check the mount: no secrets engine is mounted at the beginning of the path"}
	case len(body.Errors) > 0 || len(body.Warnings) > 0:
		return notKVv2()
	}
	return errPlainNotFound
}

// versioned returns the `data` of a KV v2 answer, and false for an answer of any other engine.
func versioned(body kvAnswer) (kvData, bool) {
	var data kvData
	if isNull(body.Data) || json.Unmarshal(body.Data, &data) != nil {
		return kvData{}, false
	}
	return data, data.Metadata != nil && data.Metadata.Version > 0
}

// gone returns why a version without data has none, and nil when its data is null though nobody deleted it.
func gone(metadata *kvMetadata, isDeleted bool) error {
	switch {
	case metadata.Destroyed:
		return &CallError{Sentinel: ErrVersionDestroyed, Doing: doingRead,
			Remedy: "write a new version of the secret, or ask for another version"}
	case isDeleted:
		return &CallError{Sentinel: ErrVersionDeleted, Doing: doingRead,
			Remedy: "undelete the version in Vault, write a new one, or ask for another version"}
	}
	return nil
}

// isPast reports whether a version's deletion has come: delete_version_after sets a time ahead.
func isPast(deletion string) bool {
	return deletion != "" && !parseDeletion(deletion).After(time.Now())
}

// parseDeletion returns when a version is or was deleted; the zero time when the text says nothing of it.
func parseDeletion(deletion string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, deletion)
	if err != nil {
		return time.Time{}
	}
	return at
}

// decodeFields returns the strings and the other values of a secret.
func decodeFields(data json.RawMessage) (texts, others []field, err error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, nil, errors.New("the secret's data is not a JSON object")
	}
	for key, text := range raw {
		key = unique.Make(key).Value() // most secrets have the same few keys: one copy of each is enough
		if len(text) == 0 || text[0] != '"' {
			others = append(others, field{key: key, text: string(text)})
			continue
		}
		var s string
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, nil, errors.New("a value of the secret is not valid JSON")
		}
		texts = append(texts, field{key: key, text: s})
	}
	return texts, others, nil
}

// decode decodes one JSON value; what follows it is an error. Errors never quote the text.
func decode(text []byte, into any) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("the answer's JSON has an unexpected shape (%T)", err)
	}
	return nil
}

func isNull(text json.RawMessage) bool { return len(text) == 0 || string(text) == "null" }

func mentions(errs []string, phrase string) bool {
	return slices.ContainsFunc(errs, func(text string) bool { return strings.Contains(text, phrase) })
}

func permissionDenied() error {
	return &CallError{Sentinel: ErrPermissionDenied, Doing: doingRead,
		Remedy: `check the path, the mount above all; if it is right, give the role a policy with ` +
			`path "mount/data/secret" { capabilities = ["read"] }`}
}

func notKVv2() error {
	return &CallError{Sentinel: ErrNotKVv2, Doing: doingRead,
		Remedy: "name a path of a KV version 2 mount, mount/data/path; enable versioning on the mount if it is version 1"}
}

func notFound() error {
	return &CallError{Sentinel: ErrNotFound, Doing: doingRead,
		Remedy: "check the path and the version: Vault has no such secret"}
}
