package leak

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
)

// window is the last Least bytes of a view, with their rolling hash.
type window struct {
	bytes  [Least]byte
	starts [Least]int64 // where in the text each of them begins
	n      int          // bytes so far
	hash   uint64

	left      byte // the byte before them, once there is one
	leftStart int64
}

func (w *window) push(k *keys, b byte, start int64) {
	i := w.n % Least
	hash := bits.RotateLeft64(w.hash, 1) ^ k.bytes[b]
	if w.n >= Least {
		w.left, w.leftStart = w.bytes[i], w.starts[i]
		hash ^= bits.RotateLeft64(k.bytes[w.left], Least)
	}
	w.bytes[i], w.starts[i], w.hash = b, start, hash
	w.n++
}

// candidate is a place in the text that began like some patterns.
type candidate struct {
	start     int64
	leadStart int64        // where the byte before it begins
	plain     maphash.Hash // of the bytes so far
	coded     maphash.Hash // of the bytes so far, in canonical form
	last      byte
	n         int       // bytes so far
	patterns  []pattern // those that it can still be; not ours to change
	due       int       // how many bytes it takes to tell more
}

// candidates are those of one view that are open.
type candidates []*candidate

// maxCandidates bounds those of one view. Texts come near it only when somebody makes them for
// that: at each of checkpoints a candidate that is no pattern is dropped.
const maxCandidates = 128

// newCandidate is one with the window's bytes, of those patterns whose lead is right.
func newCandidate(k *keys, w *window, patterns []pattern) *candidate {
	oldest := w.n % Least
	one := &candidate{start: w.starts[oldest], leadStart: w.leftStart, due: math.MaxInt}
	misled := func(p pattern) bool {
		return p.lead.mask != 0 && (w.n <= Least || !p.lead.matches(w.left))
	}
	if one.patterns = patterns; slices.ContainsFunc(patterns, misled) {
		one.patterns = slices.DeleteFunc(slices.Clone(patterns), misled)
	}
	for i := range one.patterns {
		one.due = min(one.due, one.patterns[i].due(Least-1))
	}
	one.plain.SetSeed(k.seed)
	one.coded.SetSeed(k.seed)
	for i := range Least {
		one.push(w.bytes[(oldest+i)%Least])
	}
	return one
}

func (c *candidate) push(b byte) {
	_ = c.plain.WriteByte(b) // never fails
	_ = c.coded.WriteByte(canonical[b])
	c.last = b
	c.n++
}

// judge drops the patterns that the candidate cannot be, and tells those that it is to the end.
func (c *candidate) judge(found func(start int64, v *value)) {
	if c.n < c.due {
		return
	}
	plain, coded := c.plain.Sum64(), c.coded.Sum64()
	var left []pattern
	c.due = math.MaxInt
	for i := range c.patterns {
		p := &c.patterns[i]
		sum, start := plain, c.start
		if p.base64 {
			sum = coded
		}
		if p.lead.mask != 0 {
			start = c.leadStart
		}
		switch {
		case p.due(c.n-1) == c.n && !p.canBe(c.n, sum, c.last):
		case p.end() == c.n:
			found(start, p.value)
		default:
			left = append(left, *p)
			c.due = min(c.due, p.due(c.n))
		}
	}
	c.patterns = left
}

// advance gives all candidates the next byte of their view.
func (c *candidates) advance(b byte, found func(start int64, v *value)) {
	for _, one := range *c {
		one.push(b)
		one.judge(found)
	}
	*c = slices.DeleteFunc(*c, func(one *candidate) bool { return len(one.patterns) == 0 })
}

// begin adds a candidate with the window's bytes, unless those settle it.
func (c *candidates) begin(
	k *keys, w *window, patterns []pattern, found func(start int64, v *value),
) {
	one := newCandidate(k, w, patterns)
	if one.judge(found); len(one.patterns) == 0 {
		return
	}
	if len(*c) == maxCandidates {
		*c = slices.Delete(*c, 0, 1)
	}
	*c = append(*c, one)
}

// view is the text with one kind of escapes undone. Where no escape is near it is the text itself,
// whose window then stands for its own.
type view struct {
	*escaping

	held   []byte // of an escape that is not complete
	heldAt int64
	apart  int    // so many bytes of the view have to follow until its window is the text's again
	window window // where it is not the text's
	open   candidates
}

// likeText reports whether the view's window is the text's.
func (v *view) likeText() bool { return v.apart == 0 && len(v.held) == 0 }

// idle reports whether the view has no use for the next byte, unless an escape begins with it.
func (v *view) idle() bool { return v.likeText() && len(v.open) == 0 }
