package client

import (
	"strings"
	"unicode"
)

const (
	storedOpen      = "{{"
	storedSeparator = "|ap_sep_v1|"
	storedClose     = "}}"
)

// StoredReference takes a stored reference apart. A text is one when it is exactly one
// `{{connection|ap_sep_v1|path}}`, with blank space around it or not. Two in a row are none; braces
// within are part of the path. The first separator counts. Connection and path come back as they
// are, blanks included; either may be empty or wrong, and resolving it says so.
func StoredReference(text string) (connection, path string, ok bool) {
	inside := strings.TrimFunc(text, isBlank)
	if len(inside) < len(storedOpen)+len(storedClose) {
		return "", "", false
	}
	inside, opened := strings.CutPrefix(inside, storedOpen)
	inside, closed := strings.CutSuffix(inside, storedClose)
	_, afterFirst, _ := strings.Cut(inside, storedClose)
	if !opened || !closed || strings.Contains(afterFirst, storedOpen) {
		return "", "", false
	}
	return strings.Cut(inside, storedSeparator)
}

// isBlank reports what JavaScript's trim() removes (ECMAScript, "WhiteSpace" and "LineTerminator"),
// because the platform trims with it.
func isBlank(r rune) bool { return r == '\ufeff' || unicode.IsSpace(r) && r != '\u0085' }
