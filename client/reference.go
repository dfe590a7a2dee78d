package client

import "strings"

const (
	storedOpen      = "{{"
	storedSeparator = "|ap_sep_v1|"
	storedClose     = "}}"
	// storedBlanks may stand around a stored reference.
	storedBlanks = " \t\r\n"
)

// StoredReference takes a stored reference apart. A text is one when it is exactly
// `{{connection|ap_sep_v1|path}}`: blanks (space, tab, line ends) may stand around it, and no other
// `{{` or `}}` stands in it. The first separator counts. Connection and path come back as they are,
// blanks included; either may be empty or wrong, and resolving it says so.
func StoredReference(text string) (connection, path string, ok bool) {
	inside := strings.Trim(text, storedBlanks)
	if len(inside) < len(storedOpen)+len(storedClose) {
		return "", "", false
	}
	inside, opened := strings.CutPrefix(inside, storedOpen)
	inside, closed := strings.CutSuffix(inside, storedClose)
	if !opened || !closed || strings.Contains(inside, storedOpen) || strings.Contains(inside, storedClose) {
		return "", "", false
	}
	return strings.Cut(inside, storedSeparator)
}
