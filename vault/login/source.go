package login

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/breaker"
	"github.com/secret-sidecar/secret-sidecar/internal/filewatch"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const defaultMount = "approle"

// Role is the AppRole to log in as. It is comparable: a different one needs a new login.
type Role struct {
	// AuthMount is where AppRole is mounted; empty is "approle".
	AuthMount string
	// RoleID is required. SecretID may be zero for a role with bind_secret_id=false.
	RoleID, SecretID Credential
	// SecretIDWrapped means that SecretID is a response-wrapping token. It is unwrapped once for
	// all Sources that share a Budget.
	SecretIDWrapped bool
}

// Config says where to log in, and as whom.
type Config struct {
	// Client talks to Vault, and Breaker allows its calls. The readers of secrets use the same two.
	// Required.
	Client  *vault.Client
	Breaker *breaker.Breaker
	// Budget is what logins may cost; share one in a process. Required.
	Budget *Budget
	// Connection is the connection's name, used in advice about what to type.
	Connection string
	// Namespace is the Vault Enterprise namespace.
	Namespace string
	Role
	// Timeout bounds one call of Vault. Required.
	Timeout func() time.Duration
	// Logger is required.
	Logger *slog.Logger
	// OnChange is called after a State was published, OnRejected after Vault or the Budget refused
	// a login. They must return at once. Required.
	OnChange, OnRejected func()
	// LookUpSecretID makes the Source ask Vault once when a new secret_id expires.
	LookUpSecretID bool
	// Watch is for tests in a synctest bubble, where inotify does not work: it calls changed when a
	// file may have changed, until ctx ends. Nil watches the files.
	Watch func(ctx context.Context, changed func())
}

// Source keeps a valid token of one AppRole. It is safe for concurrent use. Close it.
type Source struct {
	cfg   Config
	role  func(credentials) target
	state atomic.Pointer[State] // only the actor writes it

	secretIDExpiry atomic.Pointer[expiry] // nil: not asked for

	requests chan renewal  // for the actor
	files    chan struct{} // capacity 1: the credential files may have changed
	woken    chan struct{} // capacity 1: the breaker has changed

	mu    sync.Mutex    // held while closed is closed, and while a goroutine is added that the actor did not start
	asked *askedRenewal // the last one that a person has asked for; guarded by mu

	closeOnce sync.Once
	closed    chan struct{}      // closed when Close begins
	stop      context.CancelFunc // ends the loops after the call in progress
	abort     context.CancelFunc // ends that call too
	loops     sync.WaitGroup     // the actor, the file watch, revocations, lookups
}

// New returns a Source that does nothing yet: call Start, and then Close.
func New(cfg Config) *Source {
	cfg.AuthMount = MountOf(cfg.AuthMount)
	s := &Source{cfg: cfg,
		role:     func(c credentials) target { return newTarget(cfg.Namespace, cfg.AuthMount, c.roleID) },
		requests: make(chan renewal), files: make(chan struct{}, 1), woken: make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	s.state.Store(&State{replaced: make(chan struct{})})
	return s
}

// Start begins to log in; it does not wait for Vault.
func (s *Source) Start() {
	watch := s.watcher() // knows the files as they are before the actor reads them
	calls, abort := context.WithCancel(context.Background())
	loop, stop := context.WithCancel(calls)
	s.stop, s.abort = stop, abort
	a := newActor(s)
	s.loops.Go(func() { a.run(loop, calls) })
	if watch != nil {
		s.loops.Go(func() { watch(loop, s.Reload) })
	}
}

// MountOf returns the mount without slashes around it, or the default for none.
func MountOf(mount string) string {
	if mount = strings.Trim(mount, "/"); mount != "" {
		return mount
	}
	return defaultMount
}

// watcher returns the watch of the credential files; nil when there are none.
func (s *Source) watcher() func(context.Context, func()) {
	var files []string
	for _, c := range []Credential{s.cfg.RoleID, s.cfg.SecretID} {
		if c.File != "" {
			files = append(files, c.File)
		}
	}
	switch {
	case len(files) == 0:
		return nil
	case s.cfg.Watch != nil:
		return s.cfg.Watch
	}
	return filewatch.New(files).Run
}

// Reload reads the credential files again. It does not wait.
func (s *Source) Reload() { notify(s.files) }

// Wake makes the Source try at once what an outage has delayed. It does not wait.
func (s *Source) Wake() { notify(s.woken) }

func notify(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Close ends the logins, revokes the token, and waits until none of the Source's goroutines runs.
// It gives up what is not done when ctx ends. Further calls do nothing and return nil.
func (s *Source) Close(ctx context.Context) error {
	var err error
	s.closeOnce.Do(func() { err = s.shutdown(ctx) })
	return err
}

func (s *Source) shutdown(ctx context.Context) error {
	s.mu.Lock()
	close(s.closed)
	s.mu.Unlock()
	s.stop()
	defer context.AfterFunc(ctx, s.abort)()
	s.loops.Wait()
	s.abort()
	if err := s.cfg.Client.Revoke(ctx, s.State().Token); err != nil {
		return fmt.Errorf("revoke the token of connection %q at shutdown, it expires by itself: %w", s.cfg.Connection, err)
	}
	return nil
}

// operation bounds a call of Vault.
func (s *Source) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.cfg.Timeout(), vault.ErrTimeout)
}

func (s *Source) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}
