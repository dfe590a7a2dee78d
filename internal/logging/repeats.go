package logging

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// repeatPeriod is how long the lines of one event are counted together.
	repeatPeriod = time.Minute
	// mostRepeats is how many of them are written in that time.
	mostRepeats = 10
)

// Repeats limits how often one event is logged. Two records are the same event when they have the
// same level, message and attribute "connection", whatever else they say. A minute begins with the
// first record of an event. Its first ten are written at once, and the last one as the minute ends,
// with the attribute "suppressed": how many before it were left out.
//
// Some records are always written. Whoever turns debug on wants all of it, and a record at info
// that is about no connection answers what a person did, a reload for example. Repeats is safe for
// concurrent use.
type Repeats struct {
	mu     sync.Mutex
	closed bool             // guarded by mu
	events map[event]*burst // guarded by mu, and so are the bursts; each is gone after its minute
}

// event is what makes records the same.
type event struct {
	level      slog.Level
	message    string
	connection string
}

// isLimited reports whether an event can be held back.
func (e event) isLimited() bool {
	return e.level >= slog.LevelWarn || e.level >= slog.LevelInfo && e.connection != ""
}

// burst is what was logged of an event in its minute.
type burst struct {
	records int
	last    func(suppressed int) // writes the last record; nil while none is held back
	timer   *time.Timer          // ends the minute; Close stops it
}

// NewRepeats returns a Repeats that has seen nothing. Close it.
func NewRepeats() *Repeats { return &Repeats{events: map[event]*burst{}} }

// Handler returns a handler that passes on to next what the limit lets through.
func (r *Repeats) Handler(next slog.Handler) slog.Handler {
	return &limited{Handler: next, repeats: r}
}

// Close writes what is held back, and limits nothing any more. Call it once.
func (r *Repeats) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for e := range r.events {
		r.end(e)
	}
}

// admit reports whether a record may be written now. Otherwise write is kept, in place of the one
// that was kept before.
func (r *Repeats) admit(e event, write func(suppressed int)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return true
	}
	b := r.events[e]
	if b == nil {
		b = &burst{timer: time.AfterFunc(repeatPeriod, func() { r.expire(e) })}
		r.events[e] = b
	}
	b.records++
	if b.records <= mostRepeats {
		return true
	}
	b.last = write
	return false
}

func (r *Repeats) expire(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.end(e)
	}
}

// end ends the event's minute and writes what it held back. mu must be held.
func (r *Repeats) end(e event) {
	b := r.events[e]
	delete(r.events, e)
	b.timer.Stop()
	if b.last != nil {
		b.last(b.records - mostRepeats - 1)
	}
}

// limited is the handler of a Repeats.
type limited struct {
	slog.Handler
	repeats    *Repeats
	connection string // what WithAttrs has said
}

// WithAttrs implements slog.Handler.
func (h *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := &limited{Handler: h.Handler.WithAttrs(attrs), repeats: h.repeats, connection: h.connection}
	for _, attr := range attrs {
		with.connection = connectionOf(attr, with.connection)
	}
	return with
}

// WithGroup implements slog.Handler.
func (h *limited) WithGroup(name string) slog.Handler {
	return &limited{Handler: h.Handler.WithGroup(name), repeats: h.repeats, connection: h.connection}
}

// Handle implements slog.Handler.
func (h *limited) Handle(ctx context.Context, record slog.Record) error {
	e := event{level: record.Level, message: record.Message, connection: h.connection}
	record.Attrs(func(attr slog.Attr) bool {
		e.connection = connectionOf(attr, e.connection)
		return true
	})
	writeLater := func(suppressed int) {
		late := record.Clone()
		if suppressed > 0 {
			late.AddAttrs(slog.Int("suppressed", suppressed))
		}
		_ = h.Handler.Handle(context.WithoutCancel(ctx), late) // nobody is left to tell
	}
	if e.isLimited() && !h.repeats.admit(e, writeLater) {
		return nil
	}
	return h.Handler.Handle(ctx, record)
}

func connectionOf(attr slog.Attr, otherwise string) string {
	if attr.Key == "connection" {
		return attr.Value.String()
	}
	return otherwise
}
