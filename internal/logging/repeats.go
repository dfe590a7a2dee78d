package logging

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

const (
	// repeatPeriod is how long the lines of one event are counted together.
	repeatPeriod = time.Minute
	// mostRepeats is how many of them are written in that time.
	mostRepeats = 10
	// maxEvents bounds the memory. Messages are constants and connections few: it is never reached.
	maxEvents = 4096
)

// Repeats limits how often one event is logged. Two records are the same event when their level, their message and
// their attribute "connection" are the same, whatever else they say. Ten a minute are written; after those only the last
// one, at the end of the minute, with the attribute "suppressed": how many before it were not. Not limited are records
// below info, of which who asks for them wants all, and those at info that are about no connection: they answer
// somebody's deed, a reload for example. It is safe for concurrent use.
type Repeats struct {
	mu     sync.Mutex
	closed bool             // guarded by mu
	events map[event]*burst // guarded by mu, and so are the bursts
}

// event is what makes records the same.
type event struct {
	level      slog.Level
	message    string
	connection string
}

// burst is what was logged of an event in one period.
type burst struct {
	until      time.Time
	written    int
	suppressed int
	last       func(suppressed int) // writes the last one
	timer      *time.Timer          // calls last at the end; nil while nothing is suppressed
}

// NewRepeats returns a Repeats that has seen nothing. Close it.
func NewRepeats() *Repeats { return &Repeats{events: map[event]*burst{}} }

// Handler returns a handler that passes on to next what the limit lets through.
func (r *Repeats) Handler(next slog.Handler) slog.Handler { return &limited{Handler: next, repeats: r} }

// Close writes what was held back, and limits nothing any more. Call it once.
func (r *Repeats) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for e := range r.events {
		r.end(e)
	}
}

// limited is the handler of a Repeats.
type limited struct {
	slog.Handler
	repeats    *Repeats
	connection string // the attribute that the logger has
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

func connectionOf(attr slog.Attr, otherwise string) string {
	if attr.Key == "connection" {
		return attr.Value.String()
	}
	return otherwise
}

// Handle implements slog.Handler.
func (h *limited) Handle(ctx context.Context, record slog.Record) error {
	if record.Level < slog.LevelInfo {
		return h.Handler.Handle(ctx, record)
	}
	e := event{level: record.Level, message: record.Message, connection: h.connection}
	record.Attrs(func(attr slog.Attr) bool {
		e.connection = connectionOf(attr, e.connection)
		return true
	})
	isFree := record.Level < slog.LevelWarn && e.connection == ""
	if !isFree && !h.repeats.admit(e, func(suppressed int) { h.writeLast(ctx, record, suppressed) }) {
		return nil
	}
	return h.Handler.Handle(ctx, record)
}

// writeLast writes a record that was held back.
func (h *limited) writeLast(ctx context.Context, record slog.Record, suppressed int) {
	record = record.Clone()
	if suppressed > 0 {
		record.AddAttrs(slog.Int("suppressed", suppressed))
	}
	_ = h.Handler.Handle(context.WithoutCancel(ctx), record) // nobody is left to tell
}

// admit reports whether a record of the event may be written now. Otherwise it is kept, in place of the one kept before.
func (r *Repeats) admit(e event, last func(suppressed int)) bool {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.events[e]
	switch {
	case r.closed:
		return true
	case b == nil, b.timer == nil && !now.Before(b.until):
		if len(r.events) >= maxEvents {
			r.forget(now)
		}
		r.events[e] = &burst{until: now.Add(repeatPeriod), written: 1}
		return true
	case b.written < mostRepeats:
		b.written++
		return true
	}
	b.last = last
	b.suppressed++
	if b.timer == nil {
		b.timer = time.AfterFunc(time.Until(b.until), func() { r.expire(e, b) }) // ended by Close at the latest
	}
	return false
}

// forget drops the events of which nothing is held back. mu must be held.
func (r *Repeats) forget(now time.Time) {
	maps.DeleteFunc(r.events, func(_ event, b *burst) bool { return b.timer == nil && !now.Before(b.until) })
}

func (r *Repeats) expire(e event, b *burst) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events[e] == b {
		r.end(e)
	}
}

// end ends the event's period and writes what was held back. mu must be held.
func (r *Repeats) end(e event) {
	b := r.events[e]
	delete(r.events, e)
	if b.timer != nil {
		b.timer.Stop()
		b.last(b.suppressed - 1)
	}
}
