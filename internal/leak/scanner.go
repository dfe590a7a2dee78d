package leak

import (
	"slices"
	"time"
)

// Finding is a place in a text that holds a value.
type Finding struct {
	// Offset and Length say which bytes of the text hold it, in the form that it has there.
	Offset, Length int64
	// Origins are where the value came from. Treat them as read-only.
	Origins []Origin
}

// Scanner reads one text. It keeps no more of it than the last few bytes. Only one goroutine may
// use it.
type Scanner struct {
	register *Register
	offset   int64  // bytes so far
	text     window // of the text as it is
	open     candidates
	views    [len(escapings)]view
	recent   []place // what was found last, to tell it once

	filter *filter // during Scan
	tell   func(Finding)
}

// place is where a value was found. Views may differ in where it begins: the backslash before its
// first character is a part of it where JSON's escapes are undone.
type place struct {
	value *value
	end   int64
}

// NewScanner returns a Scanner of a text that may hold what the Register knows.
func (r *Register) NewScanner() *Scanner {
	r.forget(time.Now())
	s := &Scanner{register: r}
	for i, e := range escapings {
		s.views[i].escaping = e
	}
	return s
}

// Scan reads the next piece of the text, and tells each finding as soon as its last byte is there.
func (s *Scanner) Scan(piece []byte, tell func(Finding)) {
	s.filter, s.tell = s.register.filter.Load(), tell
	near := s.nearEscape()
	for _, b := range piece {
		if near || mayEscape[b] || len(s.open) > 0 {
			s.follow(b)
			near = s.nearEscape()
		}
		s.text.push(s.register.keys, b, s.offset)
		s.offset++
		if s.filter.has(s.text.hash) && s.text.n >= Least {
			s.begin()
			near = s.nearEscape()
		}
	}
	s.tell = nil
}

// nearEscape reports whether a view has to see the next byte, whatever it is.
func (s *Scanner) nearEscape() bool {
	for i := range s.views {
		if !s.views[i].idle() {
			return true
		}
	}
	return false
}

// follow shows the next byte to the candidates of the text, and to the views.
func (s *Scanner) follow(b byte) {
	if len(s.open) > 0 {
		s.open.advance(b, s.foundUntil(s.offset+1))
	}
	for i := range s.views {
		if v := &s.views[i]; !v.idle() || v.starts[b] {
			s.read(v, b, s.offset)
		}
	}
}

// begin opens a candidate where the text's window is how some patterns begin: in the text, and in
// the views whose window it is too.
func (s *Scanner) begin() {
	patterns := s.register.patterns(s.text.hash)
	if len(patterns) == 0 {
		return
	}
	found := s.foundUntil(s.offset)
	s.open.begin(s.register.keys, &s.text, patterns, found)
	for i := range s.views {
		if v := &s.views[i]; v.likeText() {
			v.open.begin(s.register.keys, &s.text, patterns, found)
		}
	}
}

// read gives a view the next byte of the text. The text's window does not hold that byte yet.
func (s *Scanner) read(v *view, b byte, at int64) {
	if len(v.held) == 0 {
		if !v.starts[b] {
			s.emit(v, b, at, at+1)
			return
		}
		if v.likeText() {
			v.window = s.text
		}
		v.heldAt = at
	}
	v.held = append(v.held, b)
	decoded, n, judged := v.undo(v.held)
	switch judged {
	case complete:
		v.held = v.held[:0]
		v.apart = Least
		for _, d := range decoded[:n] {
			v.apart = Least
			s.emit(v, d, v.heldAt, at+1)
		}
	case literal:
		s.readLiterally(v)
	}
}

// readLiterally gives a view the bytes that it held: the first as it is, the others may begin an
// escape of their own.
func (s *Scanner) readLiterally(v *view) {
	held, at := slices.Clone(v.held), v.heldAt
	v.held = v.held[:0]
	v.apart = max(v.apart, len(held))
	s.emit(v, held[0], at, at+1)
	for i, b := range held[1:] {
		s.read(v, b, at+1+int64(i))
	}
}

// emit appends a byte to a view, which stands for the text from start to end.
func (s *Scanner) emit(v *view, b byte, start, end int64) {
	if len(v.open) > 0 {
		v.open.advance(b, s.foundUntil(end))
	}
	if v.apart == 0 {
		return
	}
	v.apart--
	v.window.push(s.register.keys, b, start)
	if !s.filter.has(v.window.hash) || v.window.n < Least {
		return
	}
	if patterns := s.register.patterns(v.window.hash); len(patterns) > 0 {
		v.open.begin(s.register.keys, &v.window, patterns, s.foundUntil(end))
	}
}

// keepFor is how many bytes later a view may find what another has found: an escape has no more.
const keepFor = 16

// foundUntil returns what tells a finding that ends there, unless another view has told it.
func (s *Scanner) foundUntil(end int64) func(start int64, v *value) {
	return func(start int64, v *value) {
		s.recent = slices.DeleteFunc(s.recent, func(p place) bool { return p.end+keepFor < end })
		one := place{v, end}
		if slices.Contains(s.recent, one) {
			return
		}
		s.recent = append(s.recent, one)
		s.tell(Finding{Offset: start, Length: end - start, Origins: s.register.origins(v)})
	}
}
