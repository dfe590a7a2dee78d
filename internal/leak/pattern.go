package leak

import (
	"encoding/base64"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
)

const (
	// Least is the length of the shortest value that is looked for, in bytes. What is shorter stands
	// in texts by chance, and can be guessed.
	Least = 16
	// leastVariety is how many different bytes a value has at least. "aaaaaaaaaaaaaaaa" is no secret.
	leastVariety = 5
)

// keys make the hashes of one Register. They are drawn at random, so that nobody outside of the
// process can prepare a text for them.
type keys struct {
	seed  maphash.Seed
	bytes [256]uint64 // for the rolling hash; what canonical makes equal is equal here
}

func newKeys() *keys {
	k := &keys{seed: maphash.MakeSeed()}
	for i := range k.bytes {
		k.bytes[i] = rand.Uint64() // #nosec G404 -- math/rand/v2's own source is seeded by the system
	}
	for i := range k.bytes {
		k.bytes[i] = k.bytes[canonical[i]]
	}
	return k
}

// canonical makes the two alphabets of base64 one.
var canonical = func() (table [256]byte) {
	for i := range table {
		table[i] = byte(i)
	}
	table['-'], table['_'] = '+', '/'
	return table
}()

// anchorOf is the rolling hash of the first Least bytes.
func (k *keys) anchorOf(text string) (hash uint64) {
	for i := range Least {
		hash = bits.RotateLeft64(hash, 1) ^ k.bytes[text[i]]
	}
	return hash
}

// checkpoints are the lengths at which a text that began like a pattern is judged before its end.
// Certificates and addresses of databases, for example, begin alike.
var checkpoints = [...]int{32, 64, 512}

// pattern is a text to look for, known by its hashes.
type pattern struct {
	value  *value
	length int    // of what is hashed
	base64 bool   // hashed in canonical form
	sum    uint64 // of the whole length
	prefix [len(checkpoints)]uint64

	lead, tail edge // the characters before and behind it
}

// edge is a character of base64 that a value shares with its neighbour: some of its six bits are
// the value's. The zero edge is none.
type edge struct{ mask, bits byte }

func (e edge) matches(character byte) bool {
	six := sextets[canonical[character]]
	return six != noSextet && six&e.mask == e.bits
}

// noSextet is what sextets holds for a character that is not base64's.
const noSextet = 0xff

var sextets = func() (table [256]byte) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range table {
		table[i] = noSextet
	}
	for i := range len(alphabet) {
		table[alphabet[i]] = byte(i)
	}
	return table
}()

// end is the length with the last edge.
func (p *pattern) end() int {
	if p.tail.mask != 0 {
		return p.length + 1
	}
	return p.length
}

// due is the next length after n at which canBe has something to say.
func (p *pattern) due(n int) int {
	if n >= p.length {
		return p.end()
	}
	for _, at := range checkpoints {
		if n < at && at < p.length {
			return at
		}
	}
	return p.length
}

// canBe says whether a text can still be the pattern when so many bytes of it are there: the hash
// of them is sum, the last one is last.
func (p *pattern) canBe(length int, sum uint64, last byte) bool {
	switch {
	case length == p.length:
		return sum == p.sum
	case length > p.length:
		return p.tail.matches(last)
	}
	i := slices.Index(checkpoints[:], length)
	return i < 0 || sum == p.prefix[i]
}

// patternsOf yields the patterns of a text with their anchors.
func (k *keys) patternsOf(v *value, text string, yield func(anchor uint64, p pattern)) {
	yield(k.anchorOf(text), k.hashed(text, pattern{value: v}))
	for before := range 3 {
		core, lead, tail := inBase64(text, before)
		p := k.hashed(core, pattern{value: v, base64: true, lead: lead, tail: tail})
		yield(k.anchorOf(core), p)
	}
}

// hashed is the pattern with the hashes of a text.
func (k *keys) hashed(text string, p pattern) pattern {
	p.length, p.sum = len(text), maphash.String(k.seed, text)
	for i, at := range checkpoints {
		if len(text) > at {
			p.prefix[i] = maphash.String(k.seed, text[:at])
		}
	}
	return p
}

// inBase64 is what base64 makes of a text that so many bytes stand before in its first group of
// three: the characters that depend on the text alone, and the edges that it has beside them.
func inBase64(text string, before int) (core string, lead, tail edge) {
	coded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", before) + text))
	begin, end := 8*before, 8*(before+len(text))
	first, last := (begin+5)/6, end/6
	if shared := begin % 6; shared != 0 {
		lead.mask = 1<<(6-shared) - 1
		lead.bits = sextets[coded[first-1]] & lead.mask
	}
	if own := end % 6; own != 0 {
		tail.mask = 0x3f << (6 - own) & 0x3f
		tail.bits = sextets[coded[last]] & tail.mask
	}
	return coded[first:last], lead, tail
}

// searchable says whether a value is one to look for.
func searchable(text string) bool {
	if len(text) < Least {
		return false
	}
	var seen [256]bool
	variety := 0
	for i := range len(text) {
		if !seen[text[i]] {
			seen[text[i]] = true
			variety++
		}
		if variety == leastVariety {
			return true
		}
	}
	return false
}
