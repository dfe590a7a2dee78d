package login

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/smallfile"
)

const (
	// maxCredentialBytes bounds a credential; real ones have some 100 bytes.
	maxCredentialBytes = 4 << 10
	// maxFileBytes bounds how much of a file is read, blank space around the credential included.
	maxFileBytes = 64 << 10
)

// What can be wrong with a credential. Each error of Read wraps ErrUnreadable or ErrMalformed.
var (
	// ErrUnreadable means: the file is missing, may not be read, is no regular file, or is empty.
	// It may be in mid-rotation.
	ErrUnreadable = errors.New("the credential cannot be read")
	// ErrMalformed means: the content cannot be a credential. Vault would reject it, and count the
	// rejection.
	ErrMalformed = errors.New("the credential cannot be right")
	// ErrPath is ErrMalformed for a literal that is the path of a file.
	ErrPath error = pathError{}
)

type pathError struct{}

func (pathError) Error() string { return "the credential is the path of a file" }

// Unwrap returns ErrMalformed.
func (pathError) Unwrap() error { return ErrMalformed }

// Credential is a role_id or secret_id: a literal, or a file that holds it. The zero value is no
// credential; a File wins over a Value. It is comparable.
type Credential struct {
	// Value is the credential itself.
	Value redact.String
	// File is the path of a file that holds the credential.
	File string
}

// IsZero reports whether there is no credential.
func (c Credential) IsZero() bool { return c == Credential{} }

// CredentialError says why a credential cannot be used, without quoting any of it.
type CredentialError struct {
	// Kind is ErrUnreadable, ErrMalformed or ErrPath.
	Kind error
	// Setting is where the credential was given, and File its file; empty is a literal.
	Setting, File string
	// Problem says what is wrong, as a predicate: "is empty".
	Problem string
	// Remedy says what to do.
	Remedy string
}

// Error names the setting and the file, and says what is wrong and what to do.
func (e *CredentialError) Error() string {
	where := e.Setting
	if e.File != "" {
		where += " " + e.File
	}
	return where + " " + e.Problem + ": " + e.Remedy
}

// Unwrap returns the kind.
func (e *CredentialError) Unwrap() error { return e.Kind }

// Read returns the credential without byte order mark and surrounding blank space. The zero
// Credential reads as empty. Read never blocks. It refuses what cannot be right, so that Vault is
// not asked about it. Its error is a *CredentialError, with setting as its Setting.
func (c Credential) Read(setting string) (redact.String, error) {
	text, fault := c.read(setting)
	if fault != nil {
		fault.Setting, fault.File = setting, c.File
		return redact.String{}, fault
	}
	return redact.New(text), nil
}

func (c Credential) read(setting string) (string, *CredentialError) {
	switch {
	case c.IsZero():
		return "", nil
	case c.File == "":
		return literalCredential(c.Value.Reveal(), setting)
	}
	content, fault := readFile(c.File)
	if fault != nil {
		return "", fault
	}
	text, fault := credentialIn(content)
	if text == "" && fault == nil {
		return "", unreadable("is empty", "write the credential into it")
	}
	return text, fault
}

func literalCredential(literal, setting string) (string, *CredentialError) {
	text, fault := credentialIn([]byte(literal))
	switch {
	case fault != nil:
		return "", fault
	case text == "":
		return "", malformed("is empty", "give it a value, or remove it")
	case looksLikePath(text):
		return "", &CredentialError{Kind: ErrPath, Problem: "holds a path", Remedy: "use " + setting + "_file"}
	}
	return text, nil
}

// credentialIn returns the credential in content, or why there can be none; "" for blank content.
func credentialIn(content []byte) (string, *CredentialError) {
	if looksLikeUTF16(content) {
		return "", malformed("looks like UTF-16", "save it as UTF-8")
	}
	text := strings.TrimFunc(string(content), isBlank)
	switch {
	case len(text) > maxCredentialBytes:
		return "", malformed("holds more than 4096 bytes", "a credential is one short line, write that alone")
	case !utf8.ValidString(text):
		return "", malformed("is not UTF-8", "save it as UTF-8")
	case strings.ContainsFunc(text, endsLine):
		return "", malformed("holds several lines", "write the credential alone, on one line")
	case strings.ContainsFunc(text, isInvisible):
		return "", malformed("holds a control character", "remove it, or issue the credential anew")
	}
	return text, nil
}

// isBlank reports whether a character does not count at the ends of a credential: blank space, and
// the invisible characters that editors and clipboards add, such as the byte order mark.
func isBlank(r rune) bool {
	return unicode.IsSpace(r) || r == '\ufeff' || r == '\u200b' || r == '\u2060'
}

func endsLine(r rune) bool {
	switch r {
	case '\n', '\r', '\v', '\f', '\u0085', '\u2028', '\u2029':
		return true
	}
	return false
}

// looksLikeUTF16 recognises UTF-16 by the byte order mark, or by a NUL in every other byte, as in
// plain letters.
func looksLikeUTF16(content []byte) bool {
	if bytes.HasPrefix(content, []byte{0xff, 0xfe}) || bytes.HasPrefix(content, []byte{0xfe, 0xff}) {
		return true
	}
	if len(content) < 2 || len(content)%2 != 0 {
		return false
	}
	var even, odd int
	for i, b := range content {
		switch {
		case b == 0 && i%2 == 0:
			even++
		case b == 0:
			odd++
		}
	}
	half := len(content) / 2
	return even == half && odd == 0 || odd == half && even == 0
}

// isInvisible reports whether a character has no place in a credential: a control or formatting
// character.
func isInvisible(char rune) bool { return unicode.IsControl(char) || unicode.Is(unicode.Cf, char) }

// looksLikePath looks at the beginning. Base64 may begin with a slash too, so characters that only
// base64 has decide.
func looksLikePath(text string) bool {
	for _, start := range []string{"/", "./", "../", "~/", "file:", `C:\`} {
		if strings.HasPrefix(text, start) {
			return !strings.ContainsAny(text, "+=")
		}
	}
	return false
}

// readFile says what to do about a file that cannot be read.
func readFile(name string) ([]byte, *CredentialError) {
	content, err := smallfile.Read(name, maxFileBytes)
	switch {
	case errors.Is(err, smallfile.ErrDirectory):
		return nil, unreadable("is a directory", "name the file in it that holds the credential")
	case errors.Is(err, smallfile.ErrNotRegular):
		return nil, unreadable("is no regular file", "write the credential into a file and name that")
	case errors.Is(err, smallfile.ErrTooLarge):
		return nil, malformed("holds more than 4096 bytes", "a credential is one short line, write that alone")
	case err != nil:
		return nil, cannotRead(err)
	}
	return content, nil
}

// cannotRead removes the operation and the name from err: the message has the name already.
func cannotRead(err error) *CredentialError {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return unreadable("cannot be read", err.Error()+"; create it, and let the sidecar's user read it")
}

func unreadable(problem, remedy string) *CredentialError {
	return &CredentialError{Kind: ErrUnreadable, Problem: problem, Remedy: remedy}
}

func malformed(problem, remedy string) *CredentialError {
	return &CredentialError{Kind: ErrMalformed, Problem: problem, Remedy: remedy}
}
