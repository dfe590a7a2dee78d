package leak

import "unicode/utf8"

// verdict is what the bytes of an escape are so far.
type verdict int

const (
	incomplete verdict = iota
	complete
	literal // they are no escape
)

// escaping is one way to escape.
type escaping struct {
	starts [256]bool // the bytes that an escape begins with
	// undo judges the bytes from such a byte on, and returns what a complete escape stands for.
	undo func(held []byte) (decoded [utf8.UTFMax]byte, n int, v verdict)
}

func escapingOf(starts string, undo func([]byte) ([utf8.UTFMax]byte, int, verdict)) *escaping {
	e := &escaping{undo: undo}
	for i := range len(starts) {
		e.starts[starts[i]] = true
	}
	return e
}

// escapings are the ways that are undone: those of JSON, of URLs, and of the queries of URLs, where
// a plus is a space.
var escapings = [...]*escaping{
	escapingOf(`\`, undoJSON),
	escapingOf("%", undoPercent),
	escapingOf("%+", undoQuery),
}

// mayEscape are the bytes that one of the escapings begins with.
var mayEscape = func() (table [256]bool) {
	for _, e := range escapings {
		for b, starts := range e.starts {
			table[b] = table[b] || starts
		}
	}
	return table
}()

func undoQuery(held []byte) (decoded [utf8.UTFMax]byte, n int, v verdict) {
	if held[0] == '+' {
		return one(' ')
	}
	return undoPercent(held)
}

func undoPercent(held []byte) (decoded [utf8.UTFMax]byte, n int, v verdict) {
	code, v := hex(held[1:], 2)
	if v != complete {
		return decoded, 0, v
	}
	return one(byte(code)) // #nosec G115 -- two digits
}

// simple are the escapes of JSON with one character.
var simple = map[byte]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

func undoJSON(held []byte) (decoded [utf8.UTFMax]byte, n int, v verdict) {
	if len(held) == 1 {
		return decoded, 0, incomplete
	}
	if b, ok := simple[held[1]]; ok {
		return one(b)
	}
	if held[1] != 'u' {
		return decoded, 0, literal
	}
	first, v := hex(held[2:min(6, len(held))], 4)
	if v != complete {
		return decoded, 0, v
	}
	const high, low, end, beyond = 0xd800, 0xdc00, 0xe000, 0x10000
	if first < high || end <= first {
		return decoded, utf8.EncodeRune(decoded[:], first), complete
	}
	// A rune beyond the first 65,536 is a pair of escapes.
	second, v := undoSecond(held[6:])
	if v != complete {
		return decoded, 0, v
	}
	if first >= low || second < low || end <= second {
		return decoded, 0, literal
	}
	return decoded, utf8.EncodeRune(decoded[:], beyond+(first-high)<<10+second-low), complete
}

func undoSecond(held []byte) (code rune, v verdict) {
	switch {
	case len(held) > 0 && held[0] != '\\', len(held) > 1 && held[1] != 'u':
		return 0, literal
	case len(held) < 2:
		return 0, incomplete
	}
	return hex(held[2:], 4)
}

// hex reads so many hexadecimal digits.
func hex(digits []byte, count int) (code rune, v verdict) {
	for _, digit := range digits {
		switch {
		case '0' <= digit && digit <= '9':
			code = code<<4 | rune(digit-'0')
		case 'a' <= digit|0x20 && digit|0x20 <= 'f':
			code = code<<4 | rune(digit|0x20-'a'+10)
		default:
			return 0, literal
		}
	}
	if len(digits) < count {
		return 0, incomplete
	}
	return code, complete
}

func one(b byte) (decoded [utf8.UTFMax]byte, n int, v verdict) {
	decoded[0] = b
	return decoded, 1, complete
}
