// Package audit writes down who asked for which secret. It never sees a value.
//
// The sidecar needs a log of its own because Vault's audit log names the sidecar alone, and sees
// one read where many callers asked. Each secret that is asked for is one line of JSON in a file
// that only grows:
//
//   - A Write that returns no error has put all of its lines into the file, if the log is required.
//     So the caller can refuse to answer what cannot be written down.
//   - A full disk can leave half a line behind. The next line begins on a line of its own.
//   - A disk that hangs holds up one goroutine of the Log's, and nobody else beyond a bound.
//   - The file belongs to an administrator who rotates it: Reopen follows the name.
//   - A caller chooses some of the texts. Lines are bounded, and refusals are counted, so that no
//     caller decides how fast the file grows.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// maxQueued bounds the lines that wait to be written, in bytes and in writes.
	maxQueued       = 4 << 20
	maxQueuedWrites = 1024
	// writePatience is how long a caller without a deadline waits for its line.
	writePatience = 10 * time.Second
	// hungAfter is how long one write may take until nobody waits for it any more.
	hungAfter = 5 * time.Second
	// closePatience is how long Close waits for what is queued.
	closePatience = 2 * time.Second
	// retryAfter is when a log that cannot be written is tried again, if nobody asks before.
	retryAfter = 5 * time.Second
)

// outcomeLost is the outcome of the line that says how many others are missing.
const outcomeLost = "LINES_LOST"

var errClosed = errors.New("write to the audit log: it is closed")

// Options say how a Log is kept.
type Options struct {
	// HashPaths writes paths and keys as the first 128 bits of their SHA-256. Equal ones can be
	// recognised, and whoever guesses a path can confirm it.
	HashPaths bool
	// Required makes Write wait until its lines are in the file.
	Required bool
	// Logger is told when the log can be written no more, and when it can again. Nil discards.
	Logger *slog.Logger
}

// Log is an audit log in a file. It is safe for concurrent use. Close it.
type Log struct {
	name    string
	options Options
	log     *slog.Logger

	writes   chan write          // read by the writer, closed by nobody
	reopens  chan chan error     // likewise
	room     *semaphore.Weighted // for maxQueued bytes
	refusals refusals
	closing  chan struct{} // closed by Close: the writer writes what is queued, and ends
	ended    chan struct{} // closed by the writer
	close    sync.Once

	lost atomic.Uint64 // lines that are in no file
	// when the write that is under way began, in Unix nanoseconds; 0: none is
	busySince atomic.Int64
	onChange  atomic.Pointer[func(error)] // nil: nobody listens

	failing sync.Mutex
	failure error // guarded by failing: why the log cannot be written; nil when it can
}

// write is lines that belong together.
type write struct {
	lines []byte
	count uint64
	done  chan error // has room for one; nil: nobody waits
}

// Open opens the file for appending, and makes it with mode 0600 when it is absent. Anything but a
// regular file is an error.
func Open(name string, options Options) (*Log, error) {
	file, err := openFile(name)
	if err != nil {
		return nil, err
	}
	return newLog(name, options, file), nil
}

func newLog(name string, options Options, file disk) *Log {
	l := &Log{
		name: name, options: options, log: options.Logger,
		writes: make(chan write, maxQueuedWrites), reopens: make(chan chan error),
		room:     semaphore.NewWeighted(maxQueued),
		refusals: refusals{counted: map[refusedKey]*refusedSince{}},
		closing:  make(chan struct{}), ended: make(chan struct{}),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	w := &writer{log: l, file: file}
	go w.run() // ends with Close
	return l
}

// Required reports whether a request that cannot be written down is to be refused.
func (l *Log) Required() bool { return l.options.Required }

// OnChange makes f be told when the log can be written no more, with the reason, and when it can
// again, with nil. f must return at once. Later calls replace it.
func (l *Log) OnChange(f func(error)) { l.onChange.Store(&f) }

// Err returns why the log cannot be written; nil when it can, as far as is known.
func (l *Log) Err() error {
	l.failing.Lock()
	defer l.failing.Unlock()
	return l.failure
}

// Lost returns how many lines are in no file.
func (l *Log) Lost() uint64 { return l.lost.Load() }

// Write appends a line for each entry. If the log is required it returns when they are in the file,
// or an error: then none, some or all of them are. It waits no longer than ctx allows, and for 10 s
// at most. Otherwise it returns at once, and what there is no room for is lost and counted.
func (l *Log) Write(ctx context.Context, entries ...Entry) error {
	if len(entries) == 0 {
		return nil
	}
	one := l.encode(entries)
	if !l.options.Required || ctx.Err() != nil { // who has given up gets no answer
		l.enqueue(one)
		return nil
	}
	if l.isHung() {
		return l.lose(one, l.hung())
	}
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	one.done = make(chan error, 1)
	if err := l.room.Acquire(ctx, one.size()); err != nil {
		return l.lose(one, l.waitedFor(err))
	}
	select {
	case l.writes <- one:
	case <-ctx.Done():
		l.room.Release(one.size())
		return l.lose(one, l.waitedFor(ctx.Err()))
	case <-l.ended:
		return l.lose(one, errClosed)
	}
	select {
	case err := <-one.done:
		return err
	case <-ctx.Done():
		return l.waitedFor(ctx.Err())
	case <-l.ended:
		return l.afterEnd(one)
	}
}

// afterEnd returns what became of a write that was queued when the writer ended.
func (l *Log) afterEnd(one write) error {
	select {
	case err := <-one.done:
		return err
	default:
		return l.lose(one, errClosed)
	}
}

// Refuse notes that a caller was refused so many times. Only the first refusal of a user, method
// and reason is a line at once; those of a minute are one line. Texts of the entry that the caller
// chooses are left out. It never waits.
func (l *Log) Refuse(entry Entry, times int) {
	entry.Connection, entry.Project, entry.Address, entry.Path, entry.Key = "", "", "", "", ""
	count := uint64(max(times, 1)) // #nosec G115 -- a length
	isLine, counted := l.refusals.add(&entry, count)
	switch {
	case isLine:
		if count > 1 {
			entry.Count = count
		}
		l.enqueue(l.encode([]Entry{entry}))
	case !counted:
		l.lost.Add(count)
	}
}

// Reopen opens the file by its name again, after logrotate has renamed it. After an error the old
// file stays in use.
func (l *Log) Reopen() error {
	done := make(chan error, 1)
	patience := time.NewTimer(openPatience + hungAfter)
	defer patience.Stop()
	select {
	case l.reopens <- done:
	case <-l.ended:
		return errClosed
	case <-patience.C:
		return l.hung()
	}
	select {
	case err := <-done:
		return err
	case <-patience.C:
		return l.hung()
	}
}

// Close writes what is queued and closes the file, within 2 s. Later calls of Write fail.
func (l *Log) Close() error {
	l.close.Do(func() { close(l.closing) })
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	select {
	case <-l.ended:
		return l.Err()
	case <-patience.C:
		return l.hung()
	}
}

func (l *Log) encode(entries []Entry) write {
	lines := make([]byte, 0, len(entries)*256)
	for i := range entries {
		lines = appendLine(lines, &entries[i], l.options.HashPaths)
	}
	return write{lines: lines, count: uint64(len(entries))}
}

func (w write) size() int64 { return int64(min(len(w.lines), maxQueued)) }

// enqueue queues a write for which nobody waits.
func (l *Log) enqueue(one write) {
	if !l.room.TryAcquire(one.size()) {
		_ = l.lose(one, errNoRoom)
		return
	}
	select {
	case l.writes <- one:
	default:
		l.room.Release(one.size())
		_ = l.lose(one, errNoRoom)
	}
}

var errNoRoom = errors.New("lines come faster than they are written")

// lose counts a write's lines as lost. It returns err.
func (l *Log) lose(one write, err error) error {
	l.lost.Add(one.count)
	if l.isHung() {
		l.tell(l.hung())
	}
	return err
}

// isHung reports whether a write has been under way for too long.
func (l *Log) isHung() bool {
	since := l.busySince.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > hungAfter
}

func (l *Log) hung() error {
	return fmt.Errorf("write %s: the disk does not answer", l.name)
}

// waitedFor returns why a write that ended with its ctx is not there.
func (l *Log) waitedFor(err error) error {
	if l.isHung() {
		l.tell(l.hung())
		return l.hung()
	}
	return fmt.Errorf("wait for a line of the audit log: %w", err)
}

// tell makes err the state of the log, and tells of the beginning and the end of a failure.
func (l *Log) tell(err error) {
	l.failing.Lock()
	before := l.failure
	l.failure = err
	l.failing.Unlock()
	if (before == nil) == (err == nil) {
		return
	}
	if err == nil {
		l.log.Info("the audit log can be written again", "file", l.name, "lost_lines",
			l.lost.Load())
	} else {
		l.log.Error("the audit log cannot be written: make room or fix its permissions, then "+
			"send SIGHUP",
			"file", l.name, "requests_are_refused", l.options.Required, "error", err)
	}
	if f := l.onChange.Load(); f != nil {
		(*f)(err)
	}
}

// disk is an *os.File, or a test's.
type disk interface {
	io.Writer
	io.Closer
}

// writer owns the file. Its fields belong to the goroutine of run.
type writer struct {
	log  *Log
	file disk
	torn bool   // the file ends in the middle of a line
	told uint64 // how many of the lost lines the file tells of
}

func (w *writer) run() {
	l := w.log
	defer close(l.ended)
	period := time.NewTicker(refusalPeriod)
	defer period.Stop()
	for {
		var retry <-chan time.Time
		if l.Err() != nil || l.Lost() > w.told {
			retry = time.After(retryAfter)
		}
		select {
		case one := <-l.writes:
			w.writeWith(one)
		case done := <-l.reopens:
			done <- w.reopen()
		case <-period.C:
			w.writeRefusals()
		case <-retry:
			l.tell(w.append(nil))
		case <-l.closing:
			w.end()
			return
		}
	}
}

// writeWith writes one and what else is queued, together.
func (w *writer) writeWith(one write) {
	const most = 1 << 20
	batch, lines := []write{one}, one.lines
	for len(lines) < most {
		select {
		case next := <-w.log.writes:
			batch, lines = append(batch, next), append(lines, next.lines...)
			continue
		default:
		}
		break
	}
	err := w.append(lines)
	w.log.tell(err)
	for _, written := range batch {
		w.log.room.Release(written.size())
		if err != nil {
			w.log.lost.Add(written.count)
		}
		if written.done != nil {
			written.done <- err
		}
	}
}

func (w *writer) writeRefusals() {
	counted := w.log.refusals.take()
	if len(counted) == 0 {
		return
	}
	lines := w.log.encode(counted)
	err := w.append(lines.lines)
	w.log.tell(err)
	if err != nil {
		w.log.lost.Add(lines.count)
	}
}

// append writes the lines, after one that tells of those that are lost.
func (w *writer) append(lines []byte) error {
	w.log.busySince.Store(time.Now().UnixNano())
	defer w.log.busySince.Store(0)
	lost := w.log.Lost()
	if lost > w.told {
		missing := Entry{Time: time.Now(), Outcome: outcomeLost, Count: lost - w.told}
		lines = append(appendLine(nil, &missing, false), lines...)
	}
	if w.torn {
		lines = append([]byte{'\n'}, lines...)
	}
	n, err := w.file.Write(lines)
	if err != nil {
		w.torn = n > 0 && lines[n-1] != '\n' || n == 0 && w.torn
		return fmt.Errorf("write to the audit log: %w", err)
	}
	w.torn, w.told = false, lost
	return nil
}

func (w *writer) reopen() error {
	file, err := openFile(w.log.name)
	if err != nil {
		return err
	}
	old := w.file
	w.file, w.torn = file, false
	return old.Close()
}

// end writes what is queued, and the refusals that are counted, and closes the file.
func (w *writer) end() {
	for {
		select {
		case one := <-w.log.writes:
			w.writeWith(one)
			continue
		default:
		}
		break
	}
	w.writeRefusals()
	if err := w.file.Close(); err != nil {
		w.log.tell(fmt.Errorf("close the audit log: %w", err))
	}
}
