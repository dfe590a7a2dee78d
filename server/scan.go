package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/internal/leak"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// A Scan tells whether a text holds a value, so a caller may feed it guesses. These bounds are for
// each user, since a process can be replaced by another. Each byte ends one guess at most, so that
// a user makes scanBytes guesses a second, of the whole value: its beginning alone tells nothing.
const (
	// scanBytes is how much a user may scan in a second, scanBytesBurst after a pause.
	scanBytes      = 16 << 20
	scanBytesBurst = 4 << 20
	// scansAtOnce is how many scans of a user may be in progress.
	scansAtOnce = 2
	// A user may begin a scan every scanEvery, scanBurst of them after a pause.
	scanEvery = time.Second
	scanBurst = 10
)

// Scan implements the API. A scan in progress ends at its next message when the server stops, when
// scanning is turned off, and when no rule lets the caller scan any more.
func (s *Server) Scan(stream secretsidecarv1.SecretService_ScanServer) error {
	ctx, began := stream.Context(), time.Now()
	err := s.scanSafely(stream)
	failed, _ := errors.AsType[*problem](err)
	s.noteRefusal(ctx, methodScan, failed, 1)
	if failed != nil {
		s.auditRefusal(ctx, methodScan, failed, 1)
	}
	s.logRequest(ctx, methodScan, began, failed)
	return err
}

// scanSafely turns a panic into a problem. Other errors of it are problems, or those of the stream.
func (s *Server) scanSafely(stream secretsidecarv1.SecretService_ScanServer) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = s.recovered(stream.Context(), methodScan, value)
		}
	}()
	caller, err := callerOf(stream.Context())
	if err != nil {
		return err
	}
	register, refused := s.mayScan(caller)
	if refused != nil {
		return refused
	}
	use, refused := s.scans.enter(caller)
	if refused != nil {
		return refused
	}
	defer s.scans.leave(use)
	begun := audit.Entry{Outcome: auditOK}
	if unwritten := s.auditCall(stream.Context(), caller, methodScan, begun, nil); unwritten != nil {
		return unwritten
	}
	return s.scan(stream, caller, register, use)
}

// scan reads the text to its end.
func (s *Server) scan(
	stream secretsidecarv1.SecretService_ScanServer, caller unixsocket.Peer,
	register *leak.Register, use *scanUse,
) error {
	scanner := register.NewScanner()
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if current, refused := s.mayScan(caller); refused != nil {
			return refused
		} else if current != register { // it was turned off and on again
			return errScanDisabled()
		}
		if err := use.wait(stream.Context(), len(request.GetData())); err != nil {
			return problemOf(err)
		}
		if err := s.scanPiece(stream, caller, scanner, request.GetData()); err != nil {
			return err
		}
	}
}

// scanPiece sends what the next piece of the text ends.
func (s *Server) scanPiece(
	stream secretsidecarv1.SecretService_ScanServer, caller unixsocket.Peer,
	scanner *leak.Scanner, piece []byte,
) (err error) {
	running := s.current.Load()
	scanner.Scan(piece, func(found leak.Finding) {
		var told []leak.Origin
		for _, origin := range found.Origins {
			allowed := running.mayLearn(caller, origin)
			origin.Project = "" // a reference is told once, whoever it was given out for
			if err != nil || !allowed || slices.Contains(told, origin) {
				continue
			}
			told = append(told, origin)
			err = stream.Send(&secretsidecarv1.ScanResponse{
				Offset: uint64(found.Offset), Length: uint64(found.Length), // #nosec G115 -- not negative
				Connection: origin.Connection, Path: origin.Path, Key: origin.Key,
			})
		}
	})
	return err
}

// mayScan returns what the caller may scan for, if a rule lets it scan at all.
func (s *Server) mayScan(caller unixsocket.Peer) (*leak.Register, *problem) {
	running := s.current.Load()
	allows := func(rule CallerRule) bool {
		return rule.matches(caller) && slices.Contains(rule.Methods, methodScan)
	}
	if running.callers != nil && !slices.ContainsFunc(running.callers, allows) {
		return nil, errCallerNotAllowed(caller, access{method: methodScan})
	}
	if running.leaks == nil {
		return nil, errScanDisabled()
	}
	return running.leaks, nil
}

// mayLearn reports whether the caller may learn a reference: a rule that names Scan covers its
// connection and the project that the value was given out for, and that project may use the
// connection.
func (s *snapshot) mayLearn(caller unixsocket.Peer, origin leak.Origin) bool {
	c, ok := s.connections[origin.Connection]
	if !ok {
		return false
	}
	reference, err := vault.ParseReference(origin.Path, origin.Key)
	if err != nil || !c.gives(origin.Project, targetOf(reference)) {
		return false
	}
	want := access{method: methodScan, connection: c.Name, project: origin.Project,
		target: targetOf(reference)}
	return authorize(s.callers, caller, want) == nil
}

// leaksFor returns the register of a snapshot that comes after this one. What is known stays known.
func (s *snapshot) leaksFor(scan bool) *leak.Register {
	switch {
	case !scan:
		return nil
	case s.leaks != nil:
		return s.leaks
	}
	return leak.NewRegister()
}

// remember notes what is given out, where that is looked for.
func (s *Server) remember(o *outcome) {
	register := s.current.Load().leaks
	if register == nil || o.secret == nil || o.connection == nil {
		return
	}
	register.Add(o.secret.GetValue(), leak.Origin{
		Connection: o.connection.Name, Project: o.request.GetProjectId(),
		Path: o.request.GetPath(), Key: o.request.GetKey(),
	})
}

// scanMeter bounds what each user may scan.
type scanMeter struct {
	mu                       sync.Mutex
	recent[uint32, *scanUse] // guarded by mu; by uid
}

// scanUse is what one user is taking.
type scanUse struct {
	scans  int           // guarded by scanMeter.mu: in progress
	last   time.Time     // guarded by scanMeter.mu
	starts *rate.Limiter // of scans
	bytes  *rate.Limiter
}

func newScanMeter() *scanMeter { return &scanMeter{} }

// enter counts a scan in, or returns RATE_LIMITED. When it returns no problem, leave must follow.
func (m *scanMeter) enter(caller unixsocket.Peer) (*scanUse, *problem) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	use := m.use(caller.UID, now)
	if use.scans >= scansAtOnce {
		return nil, errRateLimited(fmt.Sprintf("uid %d has %d scans in progress: wait for an end",
			caller.UID, use.scans), 0)
	}
	if wait := take(use.starts, 1, now); wait > 0 {
		return nil, errRateLimited(fmt.Sprintf("uid %d begins more than one scan in %v: send more "+
			"text in one scan", caller.UID, scanEvery), wait)
	}
	use.scans++
	return use, nil
}

// use must be called with mu held.
func (m *scanMeter) use(uid uint32, now time.Time) *scanUse {
	use := m.known[uid]
	if use == nil {
		use = &scanUse{
			starts: rate.NewLimiter(rate.Every(scanEvery), scanBurst),
			bytes:  rate.NewLimiter(scanBytes, scanBytesBurst),
		}
		m.add(uid, use, now)
	}
	use.last = now
	return use
}

// isIdle reports whether the user has all of its burst again.
func (u *scanUse) isIdle(now time.Time) bool { return u.scans == 0 && now.Sub(u.last) > idleCaller }

func (m *scanMeter) leave(use *scanUse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	use.scans--
	use.last = time.Now()
}

// wait waits until the user may scan so many bytes, which one message may hold. The text waits at
// the client meanwhile.
func (u *scanUse) wait(ctx context.Context, bytes int) error {
	if err := u.bytes.WaitN(ctx, bytes); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return context.DeadlineExceeded // the wait would be longer than the caller's deadline
	}
	return nil
}
