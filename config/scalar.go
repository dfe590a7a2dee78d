package config

import (
	"fmt"
	"io/fs"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"
)

// maxDuration keeps sums of durations far from overflow.
const maxDuration = 10 * 365 * 24 * time.Hour

// A reading method returns fallback when the key is absent. When the value is wrong it reports why
// and returns fallback too, so that reading goes on and finds the next mistake.

const controlCharacter = "holds a line break or another control character: remove it"

// text reads a string, without control characters.
func (v value) text(fallback string) string {
	if !v.present() {
		return fallback
	}
	text, ok := v.rawText()
	if !ok {
		return fallback
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		v.mistake(controlCharacter)
		return fallback
	}
	return text
}

// requiredText reads a string that must not be empty.
func (v value) requiredText() string {
	if !v.present() {
		v.mistake("is missing")
		return ""
	}
	return v.filledText()
}

// filledText reads a string that must not be empty if it is present.
func (v value) filledText() string {
	before := len(v.notes.mistakes)
	text := v.text("")
	if v.present() && text == "" && len(v.notes.mistakes) == before {
		v.mistake("is empty: give it a value, or remove the key")
	}
	return text
}

// rawText reads a string as it is, without the line ends at its end.
func (v value) rawText() (string, bool) {
	switch node := v.node.(type) {
	case *ast.StringNode:
		return node.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(node.Value.Value, "\r\n"), true
	case *ast.NullNode:
		v.mistake("has no value: give it one, or remove the key")
	case *ast.MappingNode, *ast.SequenceNode:
		v.mistake("want text")
	default:
		v.mistake("want text: put it in quotes")
	}
	return "", false
}

// scalarText is the value as written, whether YAML takes it for text or a number; "" for anything
// else.
func (v value) scalarText() string {
	switch node := v.node.(type) {
	case *ast.StringNode:
		return node.Value
	case *ast.IntegerNode, *ast.FloatNode:
		return node.GetToken().Value
	}
	return ""
}

// texts reads a list of non-empty strings. Nil means an absent list; a present one has entries.
func (v value) texts() []string {
	if !v.present() {
		return nil
	}
	entries := v.list()
	if entries == nil {
		return nil
	}
	if len(entries) == 0 {
		v.mistake("is an empty list: name at least one, or remove the key")
		return nil
	}
	texts := make([]string, len(entries))
	for i, entry := range entries {
		texts[i] = entry.filledText()
	}
	return texts
}

func (v value) boolean(fallback bool) bool {
	if !v.present() {
		return fallback
	}
	node, ok := v.node.(*ast.BoolNode)
	if !ok {
		v.mistake("want true or false, without quotes")
		return fallback
	}
	return node.Value
}

// integer reads a whole number from low to high.
func (v value) integer(fallback, low, high int64) int64 {
	if !v.present() {
		return fallback
	}
	var number int64 = -1
	if node, ok := v.node.(*ast.IntegerNode); ok {
		switch n := node.Value.(type) {
		case int64:
			number = n
		case uint64:
			number = int64(min(n, math.MaxInt64)) // #nosec G115 -- bounded
		}
	}
	if number < low || number > high {
		v.mistake("want a whole number from %d to %d, without quotes", low, high)
		return fallback
	}
	return number
}

// duration reads a Go duration of at least low.
func (v value) duration(fallback, low time.Duration) time.Duration {
	if !v.present() {
		return fallback
	}
	text := v.scalarText()
	duration, err := time.ParseDuration(text)
	switch {
	case err != nil && isNumber(text):
		v.mistake("has no unit: write 10s, 15m or 1h30m")
	case err != nil:
		v.mistake("want a duration such as 500ms, 10s, 15m or 1h30m (units: ns, us, ms, s, m, h%s)",
			durationHint(text))
	case duration < 0:
		v.mistake("must not be negative")
	case duration < low:
		v.mistake("must be more than 0")
	case duration > maxDuration:
		v.mistake("must not be more than %dh", int64(maxDuration/time.Hour))
	default:
		return duration
	}
	return fallback
}

func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil
}

var (
	longUnit  = regexp.MustCompile(`^\d+ ?[dwy]`)
	wordyUnit = regexp.MustCompile(`^\d+ ?(sec|min|hour|hr|milli)`)
)

func durationHint(text string) string {
	switch {
	case longUnit.MatchString(text):
		return "; there is no unit for days, write 24h"
	case wordyUnit.MatchString(text):
		return "; the unit is one letter, as in 10s"
	case strings.Contains(text, " "):
		return "; without a space"
	}
	return ""
}

var sizePattern = regexp.MustCompile(`^(\d+) ?(|B|kB|KB|MB|GB|KiB|MiB|GiB)$`)

var sizeUnits = map[string]int64{
	"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20,
	"GiB": 1 << 30,
}

// size reads a number of bytes, more than 0.
func (v value) size(fallback int64) int64 {
	if !v.present() {
		return fallback
	}
	text := v.scalarText()
	parts := sizePattern.FindStringSubmatch(text)
	if parts == nil {
		v.mistake("want a size such as 64MiB (units: KiB, MiB, GiB, kB, MB, GB; none is bytes)")
		return fallback
	}
	number, err := strconv.ParseInt(parts[1], 10, 64)
	unit := sizeUnits[parts[2]]
	switch {
	case err != nil || number > math.MaxInt64/unit:
		v.mistake("is too large")
	case number == 0:
		v.mistake("must be more than 0")
	default:
		return number * unit
	}
	return fallback
}

var modePattern = regexp.MustCompile(`^(0o)?0?[0-7]{3}$`)

const wantMode = `want three octal digits in quotes, such as "0600" for the owner alone ` +
	`or "0660" for the group too`

// mode reads permission bits in octal, quoted or not, as chmod does.
func (v value) mode(fallback fs.FileMode) fs.FileMode {
	if !v.present() {
		return fallback
	}
	text := v.scalarText()
	if !modePattern.MatchString(text) {
		v.mistake("%s%s", wantMode, inOctal(text))
		return fallback
	}
	// cannot fail: the pattern matched
	bits, _ := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	mode := fs.FileMode(bits) // #nosec G115 -- at most 0777
	_, bare := v.node.(*ast.IntegerNode)
	switch {
	case mode&0o600 != 0o600:
		v.mistake(`must let the owner read and write: "0600" is the least%s`, inOctal(text))
		return fallback
	case bare && text[0] != '0' && mode&0o006 != 0:
		v.mistake(`would let every user of the machine open the socket: write "0660" for the `+
			`owner and the group, or "%04o" in quotes `+
			"if everybody is meant", mode)
		return fallback
	}
	return mode
}

// inOctal writes a decimal number in octal if it may be a mode: Kubernetes' YAML writes modes in
// decimal.
func inOctal(text string) string {
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil || text[0] == '0' || number > 0o777 || number&0o600 != 0o600 {
		return ""
	}
	return fmt.Sprintf(`; if a decimal number is meant, write "%04o"`, number)
}
