// Package logging is what the sidecar's log does beyond log/slog. Both parts are handlers that wrap
// another:
//
//   - WithTraces names the trace that a line belongs to, so that a line and a span lead to each
//     other.
//   - Repeats keeps an event that repeats itself from filling the disk. A connection that flaps, or
//     a worker that is refused a thousand times a second, would otherwise write as fast as the disk
//     allows, and what matters would drown in it.
//
// Repeats holds a burst's last line back and writes it later, where rate.Sometimes of
// golang.org/x/time would drop it. Most events that repeat themselves tell of a state: without the
// last line the log would go on to show one that is over.
package logging
