package conn

import (
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

const (
	// denialShownFor is how long a denial is shown after the last time that a worker met it.
	denialShownFor = 5 * time.Minute
	// denialLoggedEvery keeps workers that go on asking from filling the log.
	denialLoggedEvery = time.Minute
)

// denials remember that Vault denies reads, for the people who look at the connection. Without them
// only the workers would see the errors.
type denials struct {
	mu     sync.Mutex
	path   string    // of the last denial; empty is none. Guarded by mu, like all below.
	last   error     // names no path: not everybody who sees it may know it
	at     time.Time // of the last denial
	logged rate.Sometimes
}

// denied records a final denial, and returns it.
func (c *Connection) denied(token *vault.Token, path string, denial error) error {
	d := &c.denials
	d.mu.Lock()
	defer d.mu.Unlock()
	told := &vault.CallError{Sentinel: vault.ErrPermissionDenied, Doing: doingRead, Remedy: "the token's policies (" +
		strings.Join(token.Policies, ", ") + ") do not allow a read that workers ask for, whose error names the path: extend a policy of the role"}
	if d.path == "" {
		c.board.wake()
	}
	d.path, d.last, d.at = path, told, time.Now()
	d.logged.Interval = denialLoggedEvery
	d.logged.Do(func() { c.log.Warn("Vault denies a read", vault.Attrs(told)...) })
	return denial
}

// allowed records that the path can be read.
func (d *denials) allowed(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.path == path {
		d.path, d.last = "", nil
	}
}

// shown returns the denial that is still worth showing, or nil.
func (d *denials) shown(now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.path == "" || now.Sub(d.at) > denialShownFor {
		return nil
	}
	return d.last
}
