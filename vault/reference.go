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

// ErrInvalidReference is wrapped by every error of ParseReference and ParsePrefix. The text never
// quotes the reference, because flows put user input there.
var ErrInvalidReference = errors.New("invalid secret reference")

// Reference names one key of one KV v2 secret. Get one from ParseReference; the zero value is not a
// reference. It is comparable.
type Reference struct {
	// Path is the KV v2 API path of the secret, `mount/data/path/to/secret`.
	Path string
	// Key is the key inside the secret.
	Key string
}

// ParseReference parses `mount/data/path/to/secret/key`, or, with a key given,
// `mount/data/path/to/secret`. It does not decide which `data` segment ends the mount: only Vault
// knows, since a mount may have several segments and a secret's path may hold a `data` of its own.
// Errors wrap ErrInvalidReference and say what to change.
func ParseReference(path, key string) (Reference, error) {
	if err := checkText("key", key); err != nil {
		return Reference{}, err
	}
	if err := checkPath(path); err != nil {
		return Reference{}, err
	}
	secret := path
	if key == "" {
		secret, key = cutLastSegment(path)
	}
	if !holdsDataSegment(secret) {
		return Reference{}, missingPart(path, len(secret) < len(path))
	}
	return Reference{Path: secret, Key: key}, nil
}

// ParseOptionalReference is ParseReference for a path that may be empty: then it returns nil.
func ParseOptionalReference(path string) (*Reference, error) {
	if path == "" {
		return nil, nil
	}
	reference, err := ParseReference(path, "")
	if err != nil {
		return nil, err
	}
	return &reference, nil
}

// cutLastSegment splits text at its last slash. Without a slash, all of it is the last segment.
func cutLastSegment(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// ParsePrefix checks a prefix of references: it ends in "/", and the rest follows the rules of a
// reference but may be shorter. Errors wrap ErrInvalidReference and say what to change.
func ParsePrefix(prefix string) (string, error) {
	path, ok := strings.CutSuffix(prefix, "/")
	if !ok {
		return "", invalid(`a prefix ends in "/"`)
	}
	if err := checkPath(path); err != nil {
		return "", err
	}
	return prefix, nil
}

func checkPath(path string) error {
	if path == "" {
		return invalid("it is empty; write it as mount/data/path/to/secret/key")
	}
	if err := checkText("path", path); err != nil {
		return err
	}
	if foreign := foreignForm(path); foreign != "" {
		return invalid(foreign)
	}
	if err := checkSegments(path); err != nil {
		return err
	}
	if mount, _, _ := strings.Cut(path, "/"); isVaultsOwn(mount) {
		return invalid("it points into Vault's own mounts; name a KV v2 mount")
	}
	return nil
}

// checkSegments refuses empty segments, "." and "..".
func checkSegments(path string) error {
	ends := path[0] == '/' || path[0] == '.' || path[len(path)-1] == '/'
	if !ends && !strings.Contains(path, "//") && !strings.Contains(path, "/.") {
		return nil // nearly always, so this check is cheap
	}
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "":
			return invalid("remove leading, trailing and doubled slashes")
		case ".", "..":
			return invalid(`remove the "." and ".." segments`)
		}
	}
	return nil
}

// isVaultsOwn reports whether the mount is one where Vault keeps tokens or configuration, never KV
// secrets.
func isVaultsOwn(mount string) bool {
	switch mount {
	case "sys", "auth", "identity", "cubbyhole":
		return true
	default:
		return false
	}
}

func checkText(what, text string) error {
	switch {
	case len(text) > maxReferenceBytes:
		return invalid(fmt.Sprintf("the %s is longer than %d bytes", what, maxReferenceBytes))
	case isPrintableASCII(text): // nearly always, and much faster than what follows
		return nil
	case !utf8.ValidString(text):
		return invalid(fmt.Sprintf("the %s is not valid UTF-8", what))
	case strings.ContainsFunc(text, unicode.IsControl):
		return invalid(fmt.Sprintf("remove the control characters from the %s", what))
	}
	return nil
}

func isPrintableASCII(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// holdsDataSegment reports whether a `data` segment stands after at least one mount segment and
// before at least one secret segment. No segment of the path is empty.
func holdsDataSegment(path string) bool { return strings.Contains(path, "/data/") }

// missingPart says what is missing from a path that holdsDataSegment refused. endsInKey means that
// its last segment was taken for the key.
func missingPart(path string, endsInKey bool) error {
	segments := strings.Split(path, "/")
	after := slices.Index(segments[1:], "data") + 2 // where the path of the secret begins
	switch {
	case strings.ContainsRune(segments[len(segments)-1], '#'):
		return invalid("the key follows a slash, not #: write " +
			"mount/data/path/to/secret/key")
	case after < 2 && slices.Contains(segments[1:], "metadata"):
		return invalid("it is the path of metadata: write data instead of metadata, " +
			"mount/data/path/to/secret/key")
	case after < 2 && strings.Contains(path, `\`):
		return invalid(`write / between the segments, not \: mount/data/path/to/secret/key`)
	case after < 2 && strings.Contains(strings.ToLower(path), "%2f"):
		return invalid("send it as it is, not percent-encoded: mount/data/path/to/secret/key")
	case after < 2:
		return invalid("there is no data segment after the mount: write " +
			"mount/data/path/to/secret/key " +
			"(vault kv paths leave data out)")
	case endsInKey && len(segments) == after+1:
		return invalid("the key is missing at the end: write mount/data/path/to/secret/key")
	}
	return invalid("the secret is missing after the data segment: write " +
		"mount/data/path/to/secret/key")
}

func invalid(remedy string) error {
	return fmt.Errorf("%w: %s", ErrInvalidReference, remedy)
}
