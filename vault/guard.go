package vault

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const (
	// maxRejectedLogins is what all clients together may spend on one role: Vault locks an AppRole for everybody
	// after 5, and the rest is left to others.
	maxRejectedLogins = 3
	// rejectedMemory is how long after the last rejection all are forgotten. Vault's own counter starts again 15
	// minutes after the last one, not after the first; the rest is a margin.
	rejectedMemory = 15*time.Minute + 10*time.Second
)

// Guard holds the login budget of a process, so that no mix of clients, tests and reloads gets an AppRole
// locked, and the secret_ids that were unwrapped, so that a wrapping token is used once. Share one between all
// clients of a process. It is safe for concurrent use.
type Guard struct {
	mu        sync.Mutex
	budgets   map[loginTarget]*budget // guarded by mu
	unwrapped map[[32]byte]*unwrapped // guarded by mu; by the SHA-256 of the wrapping token, which is unique
}

// loginTarget is the SHA-256 of what Vault counts rejected logins for, however the configuration spells it.
type loginTarget [32]byte

// budget is one target's; its fields are guarded by Guard.mu.
type budget struct {
	rejected  int
	last      time.Time     // of the last rejection
	inFlight  int           // attempts that may still turn out rejected
	protected int           // clients whose credentials Vault has accepted
	ended     chan struct{} // closed and replaced when an attempt ends
}

// NewGuard returns a Guard with nothing spent.
func NewGuard() *Guard {
	return &Guard{budgets: map[loginTarget]*budget{}, unwrapped: map[[32]byte]*unwrapped{}}
}

func newLoginTarget(address *url.URL, namespace, mount string, roleID redact.String) loginTarget {
	namespace = strings.Trim(namespace, "/")
	if namespace == "root" {
		namespace = ""
	}
	parts := []string{normalAddress(address), namespace, strings.Trim(mount, "/"), strings.TrimSpace(roleID.Reveal())}
	return sha256.Sum256([]byte(strings.Join(parts, "\x00")))
}

// normalAddress spells an address one way: lower case, no default port, no trailing dot or slash.
func normalAddress(address *url.URL) string {
	host := strings.TrimSuffix(strings.ToLower(address.Hostname()), ".")
	return fmt.Sprintf("%s://[%s]:%s%s", strings.ToLower(address.Scheme), host, port(address), strings.TrimRight(address.EscapedPath(), "/"))
}

// port returns the address's port, or its scheme's.
func port(address *url.URL) string {
	if given := strings.TrimLeft(address.Port(), "0"); given != "" {
		return given
	}
	return map[string]string{"http": "80", "https": "443"}[strings.ToLower(address.Scheme)]
}

// protect keeps the last of the target's budget for credentials that Vault has accepted before, until the
// returned function is called: what is mistyped elsewhere must not keep a good login out.
func (g *Guard) protect(target loginTarget) (unprotect func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.budget(target).protected++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.budget(target).protected--
	})
}

// budget returns the target's, made when there is none. mu must be held.
func (g *Guard) budget(target loginTarget) *budget {
	b := g.budgets[target]
	if b == nil {
		b = &budget{ended: make(chan struct{})}
		g.budgets[target] = b
	}
	return b
}

// reserve takes one attempt from the target's budget, waiting for attempts in flight that might use it up.
// Proven credentials are those that Vault has accepted before. The caller must call done, once, with whether
// Vault rejected the login. When the budget is spent the error is ErrLoginRejected and says until when.
func (g *Guard) reserve(ctx context.Context, target loginTarget, proven bool) (done func(rejected bool), err error) {
	for {
		ended, err := g.tryReserve(target, proven)
		if err != nil {
			return nil, err
		}
		if ended == nil {
			return func(rejected bool) { g.release(target, rejected) }, nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, transportError(ctx, doingLogin, ctx.Err())
		}
	}
}

// tryReserve returns nil, nil when an attempt was reserved, or a channel to wait for.
func (g *Guard) tryReserve(target loginTarget, proven bool) (<-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(time.Now())
	b := g.budget(target)
	most := maxRejectedLogins
	if b.protected > 0 && !proven {
		most--
	}
	switch {
	case b.rejected >= most:
		return nil, budgetSpent(b.rejected, b.last.Add(rejectedMemory))
	case b.rejected+b.inFlight >= most:
		return b.ended, nil
	}
	b.inFlight++
	return nil, nil
}

func (g *Guard) release(target loginTarget, rejected bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.budget(target)
	b.inFlight--
	if rejected {
		b.rejected++
		b.last = time.Now()
	}
	close(b.ended)
	b.ended = make(chan struct{})
}

// sweep forgets the rejections that no longer count, and the budgets that say nothing. mu must be held.
func (g *Guard) sweep(now time.Time) {
	for target, b := range g.budgets {
		if b.rejected > 0 && now.Sub(b.last) >= rejectedMemory {
			b.rejected = 0
		}
		if b.rejected == 0 && b.inFlight == 0 && b.protected == 0 {
			delete(g.budgets, target)
		}
	}
}

func budgetSpent(rejected int, until time.Time) error {
	return &CallError{
		Sentinel: ErrLoginRejected, Doing: doingLogin, RetryAfter: time.Until(until),
		Remedy: fmt.Sprintf("Vault rejected %d logins of this role; to keep Vault from locking the role for everybody "+
			"there is no further login until %s: fix role_id and secret_id meanwhile",
			rejected, until.UTC().Format(time.RFC3339)),
	}
}
