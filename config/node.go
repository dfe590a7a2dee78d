package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// notes collects the mistakes of one file.
type notes struct {
	file     string
	mistakes Mistakes
	risks    []Mistake
}

// value is the content of one place of the file. Its node is nil when the key is absent.
type value struct {
	notes *notes
	node  ast.Node
	path  string
	place *token.Position // of the key, or of the list entry; nil is the whole file
}

// mapping holds the values at one place of the file, by the keys that the format knows.
type mapping struct {
	value
	valid  bool // false: something else is there, which is reported already
	fields map[string]value
	meant  map[string]bool // known keys that unknown ones resemble
}

func (v value) present() bool { return v.node != nil }

func (v value) isNull() bool { return v.node != nil && v.node.Type() == ast.NullType }

// origin is where the value is.
func (v value) origin() Mistake {
	m := Mistake{File: v.notes.file, Path: v.path}
	place := v.place
	if v.node != nil && !v.isNull() {
		place = start(v.node)
	}
	if place != nil {
		m.Line, m.Column = place.Line, place.Column
	}
	return m
}

func (v value) mistake(format string, args ...any) {
	m := v.origin()
	m.Message = fmt.Sprintf(format, args...)
	v.notes.mistakes = append(v.notes.mistakes, m)
}

// risk notes what is valid and may do what nobody wants.
func (v value) risk(message string) {
	m := v.origin()
	m.Message = message
	v.notes.risks = append(v.notes.risks, m)
}

// start is where a node begins: the parser puts a block mapping at its first colon.
func start(node ast.Node) *token.Position {
	if m, ok := node.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		node = m.Values[0].Key
	}
	if tk := node.GetToken(); tk != nil {
		return tk.Position
	}
	return nil
}

// mapping reads keys and reports unknown and duplicate ones. Nothing at all counts as an empty
// mapping.
func (v value) mapping(known ...string) mapping {
	m := mapping{value: v, fields: make(map[string]value, len(known)), meant: make(map[string]bool)}
	if !v.present() || v.isNull() {
		m.valid = true
		return m
	}
	node, ok := v.node.(*ast.MappingNode)
	if !ok {
		v.mistake("want keys here: %s", strings.Join(known, ", "))
		return m
	}
	m.valid = true
	for _, entry := range node.Values {
		m.add(entry, known)
	}
	return m
}

func (m mapping) add(entry *ast.MappingValueNode, known []string) {
	key := keyText(entry.Key)
	field := value{notes: m.notes, node: entry.Value, path: join(m.path, key),
		place: start(entry.Key)}
	if !slices.Contains(known, key) {
		field.node, field.path = entry.Key, m.path
		field.mistake("%s", unknownKey(m.path, key, known))
		m.meant[cmp.Or(slipAt(m.path, key).means, nearest(key, known))] = true
		return
	}
	if first, twice := m.fields[key]; twice {
		field.node = entry.Key
		field.mistake("is here twice, first on line %d: keep one", first.place.Line)
		return
	}
	m.fields[key] = field
}

// keyText is "" for a key that is not a plain word.
func keyText(key ast.MapKeyNode) string {
	node, ok := key.(*ast.StringNode)
	if !ok {
		return ""
	}
	return node.Value
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// at returns the value of a key. An absent one has a path too, and the place of the mapping, so
// that a mistake about it can say where it belongs.
func (m mapping) at(key string) value {
	if field, ok := m.fields[key]; ok {
		return field
	}
	place := m.place
	if m.present() && !m.isNull() {
		place = start(m.node)
	}
	return value{notes: m.notes, path: join(m.path, key), place: place}
}

// list reads the entries of a list. It reports anything else, and returns nil.
func (v value) list() []value {
	node, ok := v.node.(*ast.SequenceNode)
	if !ok {
		v.mistake(`want a list: "- " entries on lines of their own, or [ ]`)
		return nil
	}
	entries := make([]value, len(node.Values))
	for i, entry := range node.Values {
		entries[i] = value{notes: v.notes, node: entry, path: fmt.Sprintf("%s[%d]", v.path, i),
			place: start(entry)}
	}
	return entries
}

// unknownKey words the mistake. It names the key only when it is a usual slip, a known key at the
// wrong place or nearly a known one: anything else may be a piece of a credential.
func unknownKey(path, key string, known []string) string {
	wanted := "the keys here are " + strings.Join(known, ", ")
	if usual := slipAt(path, key); usual.hint != "" {
		return fmt.Sprintf("unknown key %q: %s", key, usual.hint)
	}
	if slices.Contains(allKeys, key) {
		return fmt.Sprintf("unknown key: %q does not belong here; %s", key, wanted)
	}
	if candidate := nearest(key, known); candidate != "" {
		return fmt.Sprintf("unknown key %q: did you mean %q?", key, candidate)
	}
	return "unknown key; " + wanted
}

// nearest returns the known key that key resembles, or "".
func nearest(key string, known []string) string {
	var best string
	least := math.MaxInt
	for _, candidate := range known {
		if len(key) > 2*len(candidate) {
			continue
		}
		changes := distance(strings.ToLower(key), candidate)
		if changes <= allowedChanges(candidate) && changes < least {
			best, least = candidate, changes
		}
	}
	return best
}

// allowedChanges is how many letters may be changed, left out or added before a key counts as
// another word. Two swapped letters are two changes.
func allowedChanges(key string) int {
	if len(key) < 4 {
		return 1
	}
	return max(2, len(key)/3)
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
