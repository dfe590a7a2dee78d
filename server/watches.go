package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const (
	// watchEvery is about how often a watched secret is read, and watchFailing while that fails: the
	// end of an outage is to be seen soon.
	watchEvery   = 30 * time.Second
	watchFailing = 5 * time.Second
	// maxWatches bounds the streams of one caller.
	maxWatches = 64
)

// watches are the secrets that somebody watches. Each is read by one goroutine, however many watch
// it.
type watches struct {
	server *Server
	every  time.Duration // replaced by tests only, before the first Watch

	mu       sync.Mutex
	secrets  map[watchKey]*watchedSecret // guarded by mu
	streams  map[callerKey]int           // guarded by mu
	reloaded chan struct{}               // guarded by mu; closed at the next reload
	polls    sync.WaitGroup              // grows under mu
}

func newWatches(s *Server) *watches {
	return &watches{
		server: s, every: watchEvery, secrets: map[watchKey]*watchedSecret{}, streams: map[callerKey]int{},
		reloaded: make(chan struct{}),
	}
}

// watchedSecret is one secret with those who watch it.
type watchedSecret struct {
	key     watchKey
	read    atomic.Pointer[watchRead] // nil: it is being read
	session atomic.Pointer[session]   // the one that it was read through last
	wake    chan struct{}             // holds one word: read now
	end     context.CancelFunc

	// drops counts the invalidations: what was read before one is shown to nobody after it.
	drops    int                   // guarded by watches.mu
	watchers map[chan struct{}]int // guarded by watches.mu: how many items of each stream
}

// watchRead is what one read has brought.
type watchRead struct {
	found cache.Result[*vault.Secret]
	err   error
}

// enter counts a stream of the caller in, or refuses it.
func (w *watches) enter(caller unixsocket.Peer) *problem {
	key := callerKey{caller.UID, caller.PID}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.streams[key] >= maxWatches {
		return errRateLimited(fmt.Sprintf("uid %d (pid %d) has %d watches open, which is the most: put more requests into one",
			caller.UID, caller.PID, maxWatches), 0)
	}
	w.streams[key]++
	return nil
}

func (w *watches) leave(caller unixsocket.Peer) {
	key := callerKey{caller.UID, caller.PID}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.streams[key]--; w.streams[key] == 0 {
		delete(w.streams, key)
	}
}

// subscribe makes notify hear of each new state of the secret, until unsubscribe. The first one
// begins to read it.
func (w *watches) subscribe(key watchKey, notify chan struct{}) *watchedSecret {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := w.secrets[key]
	if one == nil {
		ctx, cancel := context.WithCancel(context.Background())
		one = &watchedSecret{key: key, wake: make(chan struct{}, 1), end: cancel, watchers: map[chan struct{}]int{}}
		w.secrets[key] = one
		w.polls.Go(func() { w.poll(ctx, one) })
	}
	one.watchers[notify]++
	return one
}

func (w *watches) unsubscribe(one *watchedSecret, notify chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one.watchers[notify]--; one.watchers[notify] == 0 {
		delete(one.watchers, notify)
	}
	if len(one.watchers) == 0 {
		delete(w.secrets, one.key)
		one.end()
	}
}

// stop waits for the reads of secrets that nobody watches any more. Call it when no stream is left.
func (w *watches) stop() { w.polls.Wait() }

// poll reads the secret now and again until ctx is done. The first read takes what is cached.
func (w *watches) poll(ctx context.Context, one *watchedSecret) {
	var maxAge *time.Duration
	for {
		drops := w.dropsOf(one)
		read := w.load(ctx, one, maxAge)
		if ctx.Err() != nil {
			return
		}
		w.publish(one, drops, &read)
		recent := w.every / 4
		maxAge = &recent
		if !awaitPoll(ctx, one.wake, w.pauseAfter(read)) {
			return
		}
	}
}

// pauseAfter draws the time to the next read, so that watches do not read in step.
func (w *watches) pauseAfter(read watchRead) time.Duration {
	pause := w.every
	if read.err != nil || read.found.Source == cache.SourceStale {
		pause = min(pause, watchFailing)
	}
	return pause*3/4 + rand.N(pause/2) // #nosec G404 -- no secret
}

// awaitPoll reports false when ctx ended first.
func awaitPoll(ctx context.Context, wake <-chan struct{}, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
		return false
	}
	return true
}

// load reads the secret through the connection that has its name now.
func (w *watches) load(ctx context.Context, one *watchedSecret, maxAge *time.Duration) watchRead {
	s := w.server
	for {
		running := s.current.Load()
		c := running.connections[one.key.connection]
		if c == nil {
			return watchRead{err: errConnectionNotFound(one.key.connection)} // the streams say so by themselves
		}
		if !c.acquire() { // a reload ended the session: the next snapshot is already there, or the end
			if s.current.Load() == running {
				return watchRead{err: vault.ErrClosed}
			}
			continue
		}
		one.session.Store(c.session)
		asked := lookup{
			connection: c, reference: vault.Reference{Path: one.key.path}, version: one.key.version,
			ages: ages{maxAge: maxAge},
		}
		if one.key.maxStale >= 0 {
			asked.maxStale = &one.key.maxStale
		}
		found, err := s.cache.Get(ctx, asked.cacheLookup())
		c.release()
		return watchRead{found: found, err: err}
	}
}

func (w *watches) dropsOf(one *watchedSecret) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return one.drops
}

// publish shows the streams what was read, unless it was invalidated meanwhile: then the next read
// is due already.
func (w *watches) publish(one *watchedSecret, drops int, read *watchRead) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one.drops != drops {
		return
	}
	one.read.Store(read)
	for notify := range one.watchers {
		signal(notify)
	}
}

// invalidated reads what was dropped on the connection now.
func (w *watches) invalidated(connection string, isDropped func(path string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, one := range w.secrets {
		if key.connection == connection && isDropped(key.path) {
			one.drops++
			one.read.Store(nil)
			signal(one.wake)
		}
	}
}

// settingsChanged makes every stream look at its rules again, and reads what other sessions serve
// now. It is called with the new snapshot shown.
func (w *watches) settingsChanged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.reloaded)
	w.reloaded = make(chan struct{})
	running := w.server.current.Load()
	for key, one := range w.secrets {
		if c := running.connections[key.connection]; c != nil && c.session != one.session.Load() {
			signal(one.wake)
		}
	}
}

// untilReload is closed at the next reload. Take it before looking at the settings.
func (w *watches) untilReload() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reloaded
}

// open returns how many streams there are, and how many secrets they watch.
func (w *watches) open() (streams, secrets int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, count := range w.streams {
		streams += count
	}
	return streams, len(w.secrets)
}

// signal leaves a word in a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func errWatchEnded() *problem {
	return &problem{
		code: codes.Unavailable, reason: "SHUTTING_DOWN",
		message: "the watch ends with the sidecar: watch again at the next one",
	}
}

// measureWatches shows what is watched now.
func (m *metrics) measureWatches() {
	m.gauge("secret_sidecar.watch.streams", "{stream}", "Open streams of Watch", func(observe observeGaugeFunc) {
		streams, _ := m.server.watches.open()
		observe(int64(streams))
	})
	m.gauge("secret_sidecar.watch.secrets", "{secret}", "Secrets that are read now and again because somebody watches them",
		func(observe observeGaugeFunc) {
			_, secrets := m.server.watches.open()
			observe(int64(secrets))
		})
}
