package config

import "strings"

// lineEnds is a text with Unix line ends, which knows whether it came with those of Windows.
type lineEnds struct {
	unix    string
	windows bool
}

// newLineEnds returns false for a text with a mix of line ends: an edit could not keep them.
func newLineEnds(text string) (lineEnds, bool) {
	unix := withUnixLines(text)
	crlf := len(text) - len(unix)
	all := strings.Count(unix, "\n")
	return lineEnds{unix: unix, windows: crlf > 0}, crlf == 0 || crlf == all
}

// restore gives an edited text the line ends that the original had.
func (l lineEnds) restore(edited string) string {
	if !l.windows {
		return edited
	}
	return strings.ReplaceAll(edited, "\n", "\r\n")
}

// withUnixLines is for the YAML parser too, which counts the line end of a comment twice when it is
// that of Windows.
func withUnixLines(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }
