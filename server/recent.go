package server

import "time"

const (
	// idleCaller is when a caller that asks no more is forgotten.
	idleCaller = time.Minute
	// manyCallers is when it is worth looking for those, the first time.
	manyCallers = 1024
)

// recent are the callers of late, by what tells them apart, with what each of them takes. The zero
// value has none. Its owner's mutex guards it.
type recent[K comparable, U interface{ isIdle(now time.Time) bool }] struct {
	known map[K]U
	many  int // how many are known when the idle ones are forgotten
	seen  int // how many were looked at to forget them; tests ask
}

// add remembers a new caller, and forgets idle ones when there are many.
func (r *recent[K, U]) add(key K, use U, now time.Time) {
	if r.known == nil {
		r.known, r.many = map[K]U{}, manyCallers
	}
	if len(r.known) >= r.many {
		r.forgetIdle(now)
	}
	r.known[key] = use
}

// forgetIdle leaves those that take something. The next look waits until twice as many callers are
// known as this one leaves. So a new caller costs the same however many there are.
func (r *recent[K, U]) forgetIdle(now time.Time) {
	r.seen += len(r.known)
	for key, use := range r.known {
		if use.isIdle(now) {
			delete(r.known, key)
		}
	}
	r.many = max(manyCallers, 2*len(r.known))
}
