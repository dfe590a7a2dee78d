package vault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxReferenceBytes is the contract's limit on the length of a reference.
const maxReferenceBytes = 1024

// ErrInvalidReference is wrapped by every error of ParseReference and ParsePrefix. The error's text never
// quotes the reference: flows put user input there.
var ErrInvalidReference = errors.New("invalid secret reference")

// forbiddenMounts are Vault's own mounts: they hold tokens and configuration, never KV secrets.
var forbiddenMounts = map[string]bool{"sys": true, "auth": true, "identity": true, "cubbyhole": true}

// Reference points to one key of one KV v2 secret. The zero value is no reference; ParseReference makes
// them. It is comparable.
type Reference struct {
	// Path is the KV v2 API path of the secret, `mount/data/path/to/secret`.
	Path string
	// Key is the key inside the secret.
	Key string
}

// ParseReference parses `mount/data/path/to/secret/key`, or, with a key given, `mount/data/path/to/secret`.
// Which `data` segment ends the mount is Vault's business: a mount may hold several segments, and a segment
// of the secret's path may itself be called `data`. Errors wrap ErrInvalidReference and say what to change.
func ParseReference(path, key string) (Reference, error) {
	if err := checkText("key", key); err != nil {
		return Reference{}, err
	}
	segments, err := splitPath(path)
	if err != nil {
		return Reference{}, err
	}
	secret := segments
	if key == "" {
		secret, key = segments[:len(segments)-1], segments[len(segments)-1]
	}
	if !holdsDataSegment(secret) {
		return Reference{}, missingPart(segments, len(secret) < len(segments))
	}
	return Reference{Path: strings.Join(secret, "/"), Key: key}, nil
}

// ParsePrefix checks a prefix of references: it ends in "/" and what stands before obeys the rules of a
// reference, except that it may be shorter. Errors wrap ErrInvalidReference and say what to change.
func ParsePrefix(prefix string) (string, error) {
	path, ok := strings.CutSuffix(prefix, "/")
	if !ok {
		return "", invalid(`a prefix ends in "/"`)
	}
	if _, err := splitPath(path); err != nil {
		return "", err
	}
	return prefix, nil
}

func splitPath(path string) ([]string, error) {
	if path == "" {
		return nil, invalid("it is empty; write it as mount/data/path/to/secret/key")
	}
	if err := checkText("path", path); err != nil {
		return nil, err
	}
	segments := strings.Split(path, "/")
	for _, segment := range segments {
		switch segment {
		case "":
			return nil, invalid("remove leading, trailing and doubled slashes")
		case ".", "..":
			return nil, invalid(`remove the "." and ".." segments`)
		}
	}
	if forbiddenMounts[segments[0]] {
		return nil, invalid("it points into Vault's own mounts; name a KV v2 mount")
	}
	return segments, nil
}

func checkText(what, text string) error {
	switch {
	case len(text) > maxReferenceBytes:
		return invalid(fmt.Sprintf("the %s is longer than %d bytes", what, maxReferenceBytes))
	case !utf8.ValidString(text):
		return invalid(fmt.Sprintf("the %s is not valid UTF-8", what))
	case strings.ContainsFunc(text, unicode.IsControl):
		return invalid(fmt.Sprintf("remove the control characters from the %s", what))
	}
	return nil
}

// holdsDataSegment reports whether a `data` segment stands after at least one mount segment and before at
// least one secret segment.
func holdsDataSegment(segments []string) bool {
	for i := 1; i < len(segments)-1; i++ {
		if segments[i] == "data" {
			return true
		}
	}
	return false
}

// missingPart says what a path lacks whose secret holdsDataSegment refuses. endsInKey says that its last segment
// was taken for the key.
func missingPart(segments []string, endsInKey bool) error {
	after := slices.Index(segments[1:], "data") + 2 // where the path of the secret begins
	switch {
	case after < 2:
		return invalid("there is no data segment after the mount: write mount/data/path/to/secret/key " +
			"(vault kv paths leave data out)")
	case endsInKey && len(segments) == after+1:
		return invalid("the key is missing at the end: write mount/data/path/to/secret/key")
	}
	return invalid("the secret is missing after the data segment: write mount/data/path/to/secret/key")
}

func invalid(remedy string) error {
	return fmt.Errorf("%w: %s", ErrInvalidReference, remedy)
}
