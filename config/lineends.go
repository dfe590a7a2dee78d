package config

import "strings"

// lineEnds is a text with Unix line ends that knows whether it came with Windows ones.
type lineEnds struct {
	unix    string
	windows bool
}

// newLineEnds returns false for a text that mixes line ends: an edit could not keep them.
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

// withUnixLines also helps the YAML parser, which counts a Windows line end twice after a comment.
func withUnixLines(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }
