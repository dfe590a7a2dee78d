package vault

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const (
	// maxRejectedLogins in rejectedWindow is what all clients together may spend on one role. Vault locks an
	// AppRole for everybody after 5 in 15 minutes; the rest is left to others.
	maxRejectedLogins = 3
	rejectedWindow    = 15 * time.Minute
)

// Guard holds the login budget of a process, so that no mix of clients, tests and reloads gets an AppRole
// locked, and the secret_ids that were unwrapped, so that a wrapping token is used once. Share one between all
// clients of a process. It is safe for concurrent use.
type Guard struct {
	mu        sync.Mutex
	budgets   map[loginTarget]*budget   // guarded by mu
	unwrapped map[wrappedKey]*unwrapped // guarded by mu
}

// loginTarget is what Vault counts rejected logins for, however the configuration spells it.
type loginTarget struct {
	address, namespace, mount string
	roleID                    redact.String
}

// budget is one target's; its fields are guarded by Guard.mu.
type budget struct {
	rejected []time.Time   // oldest first, at most maxRejectedLogins
	inFlight int           // attempts that may still turn out rejected
	ended    chan struct{} // closed and replaced when an attempt ends
}

// NewGuard returns a Guard with nothing spent.
func NewGuard() *Guard {
	return &Guard{budgets: map[loginTarget]*budget{}, unwrapped: map[wrappedKey]*unwrapped{}}
}

func newLoginTarget(address *url.URL, namespace, mount string, roleID redact.String) loginTarget {
	return loginTarget{
		address:   normalAddress(address),
		namespace: strings.Trim(namespace, "/"),
		mount:     strings.Trim(mount, "/"),
		roleID:    roleID,
	}
}

// normalAddress spells an address one way: lower case, no default port, no trailing dot or slash.
func normalAddress(address *url.URL) string {
	scheme, port := strings.ToLower(address.Scheme), address.Port()
	host := strings.TrimSuffix(strings.ToLower(address.Hostname()), ".")
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return fmt.Sprintf("%s://[%s]:%s%s", scheme, host, port, strings.TrimRight(address.EscapedPath(), "/"))
}

// reserve takes one attempt from the target's budget, waiting for attempts in flight that might use it up.
// The caller must call done, once, with whether Vault rejected the login. When the budget is spent the error is
// ErrLoginRejected and says until when.
func (g *Guard) reserve(ctx context.Context, target loginTarget) (done func(rejected bool), err error) {
	for {
		ended, err := g.tryReserve(target)
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
func (g *Guard) tryReserve(target loginTarget) (<-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.budgets[target]
	if b == nil {
		b = &budget{ended: make(chan struct{})}
		g.budgets[target] = b
	}
	b.forget(time.Now())
	switch {
	case len(b.rejected) >= maxRejectedLogins:
		return nil, budgetSpent(b.rejected[0].Add(rejectedWindow))
	case len(b.rejected)+b.inFlight >= maxRejectedLogins:
		return b.ended, nil
	}
	b.inFlight++
	return nil, nil
}

func (g *Guard) release(target loginTarget, rejected bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.budgets[target]
	b.inFlight--
	if rejected {
		b.rejected = append(b.rejected, time.Now())
	}
	close(b.ended)
	b.ended = make(chan struct{})
	if b.forget(time.Now()); b.inFlight == 0 && len(b.rejected) == 0 {
		delete(g.budgets, target)
	}
}

// forget drops the rejections that no longer count.
func (b *budget) forget(now time.Time) {
	for len(b.rejected) > 0 && now.Sub(b.rejected[0]) >= rejectedWindow {
		b.rejected = b.rejected[1:]
	}
}

func budgetSpent(until time.Time) error {
	return &CallError{
		Sentinel: ErrLoginRejected, Doing: doingLogin, RetryAfter: time.Until(until),
		Remedy: fmt.Sprintf("Vault rejected %d logins of this role within %d minutes; to keep Vault from locking the "+
			"role there is no further login until %s: fix role_id and secret_id meanwhile",
			maxRejectedLogins, int(rejectedWindow.Minutes()), until.UTC().Format(time.RFC3339)),
	}
}
