package config

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// layout knows where the connections are in the text of a valid configuration, so that an edit does
// not touch a byte of the rest.
type layout struct {
	text  string
	lines []int // where each line begins
	root  *ast.MappingNode
	field *ast.MappingValueNode // `connections: …`
	list  *ast.SequenceNode
	next  int // line of the key after connections, or the number of lines + 1
}

// newLayout returns false for a text in which it cannot find the connections.
func newLayout(text string) (*layout, bool) {
	if strings.HasPrefix(text, string(byteOrderMark)) {
		return nil, false
	}
	node, mistake := source{text: []byte(text)}.root()
	root, ok := node.(*ast.MappingNode)
	if mistake != nil || !ok {
		return nil, false
	}
	l := &layout{text: text, lines: lineStarts(text), root: root}
	l.next = len(l.lines) + 1
	for _, entry := range root.Values {
		if l.field != nil {
			l.next = start(entry.Key).Line
			break
		}
		if keyText(entry.Key) == "connections" {
			l.field = entry
			l.list, ok = entry.Value.(*ast.SequenceNode)
		}
	}
	return l, ok && l.list != nil
}

// withoutValue is the line of a key that has no value, or null.
var withoutValue = regexp.MustCompile(`^(connections:)[ \t]*(?:null|~)?[ \t]*(#.*)?$`)

// withList gives a text without connections an empty list of them, also in the place of null. It
// leaves other texts alone.
func withList(text string) string {
	node, mistake := source{text: []byte(text)}.root()
	root, ok := node.(*ast.MappingNode)
	if mistake != nil || !ok || root.IsFlowStyle {
		return text
	}
	for _, entry := range root.Values {
		if keyText(entry.Key) != "connections" {
			continue
		}
		if _, null := entry.Value.(*ast.NullNode); !null {
			return text
		}
		lines := strings.SplitAfter(text, "\n")
		at := start(entry.Key).Line - 1
		line, end := strings.CutSuffix(lines[at], "\n")
		lines[at] = withoutValue.ReplaceAllString(line, "$1 [] $2")
		lines[at] = strings.TrimRight(lines[at], " ")
		if end {
			lines[at] += "\n"
		}
		return strings.Join(lines, "")
	}
	return withLineEnd(text) + "connections: []\n"
}

func lineStarts(text string) []int {
	starts := []int{0}
	for i := range len(text) {
		if text[i] == '\n' && i+1 < len(text) {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// appendConnection returns false for a layout that it does not know.
func appendConnection(text string, added item) (string, bool) {
	l, ok := newLayout(text)
	switch {
	case !ok:
		return "", false
	case !l.list.IsFlowStyle:
		return l.appendBlock(added.block)
	case len(l.list.Values) == 0 && !l.root.IsFlowStyle:
		return l.replaceEmpty(added.block)
	}
	return l.appendFlow(added.flow)
}

// removeConnection returns false for a layout that it does not know.
func removeConnection(text string, index int) (string, bool) {
	l, ok := newLayout(text)
	switch {
	case !ok || index >= len(l.list.Values):
		return "", false
	case l.list.IsFlowStyle:
		return l.removeFlow(index)
	}
	return l.removeBlock(index)
}

func (l *layout) appendBlock(block string) (string, bool) {
	entries := l.list.Entries
	if len(entries) == 0 {
		return "", false
	}
	last := entries[len(entries)-1].Start.Position
	end := l.contentEnd(last.Line, l.next, last.Column)
	return l.insertLine(end+1, indent(block, last.Column-1)), true
}

// replaceEmpty writes a block in the place of `[]`.
func (l *layout) replaceEmpty(block string) (string, bool) {
	from, to, ok := l.brackets()
	if !ok {
		return "", false
	}
	rest := l.text[to+1:]
	line, after, _ := strings.Cut(rest, "\n")
	head := strings.TrimRight(l.text[:from], " ") + strings.TrimRight(line, " \r") + "\n"
	column := start(l.field.Key).Column - 1
	return head + indent(block, column+2) + after, true
}

func (l *layout) appendFlow(flow string) (string, bool) {
	from, to, ok := l.brackets()
	if !ok {
		return "", false
	}
	before := strings.TrimRight(l.text[:to], " \r\n")
	separator := ", "
	if len(before) == from+1 || strings.HasSuffix(before, ",") {
		separator = ""
	}
	return before + separator + flow + l.text[len(before):], true
}

func (l *layout) removeFlow(index int) (string, bool) {
	from, to, ok := l.brackets()
	if !ok {
		return "", false
	}
	values := l.list.Values
	switch {
	case len(values) == 1:
		return l.text[:from+1] + l.text[to:], true
	case index < len(values)-1:
		return l.text[:l.offset(start(values[index]))] +
			l.text[l.offset(start(values[index+1])):], true
	}
	before := strings.TrimRight(l.text[:l.offset(start(values[index]))], " \r\n")
	return strings.TrimSuffix(before, ",") + l.text[to:], true
}

// removeBlock removes an entry with the comment directly above it and the empty lines below it.
func (l *layout) removeBlock(index int) (string, bool) {
	entries := l.list.Entries
	if index >= len(entries) {
		return "", false
	}
	at := entries[index].Start.Position
	boundary := l.next
	if index+1 < len(entries) {
		boundary = entries[index+1].Start.Position.Line
	}
	first := at.Line
	for first-1 > start(l.field.Key).Line && l.isComment(first-1) &&
		l.indentation(first-1) == at.Column-1 {
		first--
	}
	after := l.contentEnd(at.Line, boundary, at.Column) + 1
	for index+1 < len(entries) && after < boundary && l.isEmpty(after) {
		after++
	}
	head, tail := l.text[:l.begin(first)], l.text[l.begin(after):]
	if len(entries) > 1 {
		return head + tail, true
	}
	colon := l.offset(l.field.Start.Position) + 1
	return head[:colon] + " []" + head[colon:] + tail, true
}

// contentEnd returns the last line of an entry that begins on line first and ends before line
// boundary. Empty lines at its end do not belong to it, nor do comments that are not indented
// deeper.
func (l *layout) contentEnd(first, boundary, column int) int {
	end := boundary - 1
	for end > first && (l.isEmpty(end) || l.isComment(end) && l.indentation(end) < column) {
		end--
	}
	return end
}

// brackets returns the positions of the list's "[" and "]".
func (l *layout) brackets() (from, to int, ok bool) {
	if l.list.Start == nil || l.list.End == nil {
		return 0, 0, false
	}
	from, to = l.offset(l.list.Start.Position), l.offset(l.list.End.Position)
	ok = from < to && to < len(l.text) && l.text[from] == '[' && l.text[to] == ']'
	return from, to, ok
}

// offset converts a position of the parser, which counts characters, into one in the text.
func (l *layout) offset(at *token.Position) int {
	offset := l.begin(at.Line)
	for range at.Column - 1 {
		_, size := utf8.DecodeRuneInString(l.text[offset:])
		offset += size
	}
	return offset
}

// begin is where a line begins. The line after the last one begins at the end.
func (l *layout) begin(line int) int {
	if line > len(l.lines) {
		return len(l.text)
	}
	return l.lines[line-1]
}

func (l *layout) line(line int) string { return l.text[l.begin(line):l.begin(line+1)] }

func (l *layout) isEmpty(line int) bool { return strings.TrimSpace(l.line(line)) == "" }

func (l *layout) isComment(line int) bool {
	return strings.HasPrefix(strings.TrimLeft(l.line(line), " \t"), "#")
}

func (l *layout) indentation(line int) int {
	text := l.line(line)
	return len(text) - len(strings.TrimLeft(text, " "))
}

// insertLine puts text before a line.
func (l *layout) insertLine(line int, text string) string {
	at := l.begin(line)
	return withLineEnd(l.text[:at]) + text + l.text[at:]
}

// indent moves every line to the right.
func indent(text string, columns int) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.Repeat(" ", columns) + line)
	}
	return out.String()
}

func withLineEnd(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}

// isBlank reports whether a text holds nothing but empty lines and comments.
func isBlank(text string) bool {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}
