package login

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const (
	doingLogin = "log in"
	// maxRejected bounds what all logins of a process may spend on one role. Vault locks an AppRole
	// for everybody after 5 rejections; we leave the rest to others.
	maxRejected = 3
	// rejectedMemory is how long after the last rejection all are forgotten. Vault's own counter
	// restarts 15 minutes after the last one, not after the first; the rest is a margin.
	rejectedMemory = 15*time.Minute + 10*time.Second
)

// Budget bounds what the logins of a process may cost together, so that no mix of connections,
// tests and reloads gets an AppRole locked. It also remembers unwrapped secret_ids, so that a
// wrapping token is used once. Share one in a process. It is safe for concurrent use.
type Budget struct {
	mu        sync.Mutex
	accounts  map[target]*account     // guarded by mu
	unwrapped map[[32]byte]*unwrapped // guarded by mu; by the SHA-256 of the wrapping token, which is unique
}

// target is the SHA-256 of what Vault counts rejected logins by. The address is not part of it,
// because one Vault has many names. Nor is the spelling.
type target [32]byte

// account belongs to one target; Budget.mu guards its fields.
type account struct {
	rejected  int
	last      time.Time     // of the last rejection that counts, or may yet
	lost      int           // logins whose answer was lost, not counted yet
	doubted   time.Time     // when the last login's answer was lost; zero when it was not
	inFlight  int           // attempts that may still turn out rejected
	protected int           // connections whose credentials Vault has accepted
	ended     chan struct{} // closed and replaced when an attempt ends
}

// NewBudget returns a Budget with nothing spent.
func NewBudget() *Budget {
	return &Budget{accounts: map[target]*account{}, unwrapped: map[[32]byte]*unwrapped{}}
}

func newTarget(namespace, mount string, roleID redact.String) target {
	namespace = strings.Trim(namespace, "/")
	if strings.EqualFold(namespace, "root") {
		namespace = ""
	}
	parts := []string{namespace, strings.Trim(mount, "/"), strings.TrimSpace(roleID.Reveal())}
	return sha256.Sum256([]byte(strings.ToLower(strings.Join(parts, "\x00"))))
}

// protect reserves the last of the target's budget for credentials that Vault has accepted before,
// until the returned function is called. A mistyped secret_id elsewhere must not keep a good login
// out.
func (b *Budget) protect(role target) (unprotect func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.account(role).protected++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.account(role).protected--
	})
}

// account returns the target's account, and makes it first if necessary. mu must be held.
func (b *Budget) account(role target) *account {
	one := b.accounts[role]
	if one == nil {
		one = &account{ended: make(chan struct{})}
		b.accounts[role] = one
	}
	return one
}

// attempt is a login that the Budget allows. Call its done once.
type attempt struct {
	budget *Budget
	role   target
	proven bool
	// inDoubt means that the answer to the last login was lost: Vault must answer something else
	// before this one goes out.
	inDoubt bool
}

// reserve takes one attempt from the target's budget. It waits for attempts in flight that may use
// the budget up. Proven credentials are those that Vault has accepted before. When the budget is
// spent the error is vault.ErrLoginRejected and says until when.
func (b *Budget) reserve(ctx context.Context, role target, proven bool) (attempt, error) {
	for {
		one, wait, err := b.tryReserve(role, proven)
		if wait == nil {
			return one, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return attempt{}, ended(ctx)
		}
	}
}

// tryReserve returns an attempt, or a channel to wait for.
func (b *Budget) tryReserve(role target, proven bool) (attempt, <-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(time.Now())
	one := b.account(role)
	most := maxRejected
	if one.protected > 0 && !proven {
		most--
	}
	switch {
	case one.rejected >= most, one.rejected > 0 && one.rejected+one.lost >= most:
		return attempt{}, nil, budgetSpent(one.rejected+one.lost, one.last.Add(rejectedMemory))
	case one.rejected+one.lost+one.inFlight >= most:
		return attempt{}, one.ended, nil
	}
	one.inFlight++
	return attempt{budget: b, role: role, proven: proven, inDoubt: !one.doubted.IsZero()}, nil, nil
}

// done records what the login may have cost. One lost answer gets the benefit of the doubt. It
// counts after all when the next one is rejected or lost too, unless Vault has accepted the
// credentials before.
func (a attempt) done(fate vault.LoginFate) {
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	one := a.budget.account(a.role)
	one.inFlight--
	switch fate {
	case vault.LoginGranted:
		one.doubted, one.lost = time.Time{}, 0
	case vault.LoginRejected:
		one.rejected += 1 + one.lost
		one.doubted, one.lost, one.last = time.Time{}, 0, time.Now()
	case vault.LoginLost:
		one.doubted = time.Now()
		one.lose(a.proven)
	case vault.LoginNotTried:
	}
	close(one.ended)
	one.ended = make(chan struct{})
}

func (a *account) lose(proven bool) {
	switch {
	case proven:
		return
	case a.lost == 0:
		a.lost = 1
	default:
		a.rejected++
	}
	a.last = time.Now()
}

// sweep forgets rejections that no longer count, and empty accounts. mu must be held.
func (b *Budget) sweep(now time.Time) {
	for role, one := range b.accounts {
		if now.Sub(one.last) >= rejectedMemory {
			one.rejected, one.lost = 0, 0
		}
		if now.Sub(one.doubted) >= rejectedMemory {
			one.doubted = time.Time{}
		}
		if one.rejected == 0 && one.lost == 0 && one.doubted.IsZero() && one.inFlight == 0 && one.protected == 0 {
			delete(b.accounts, role)
		}
	}
}

func budgetSpent(rejected int, until time.Time) error {
	return &vault.CallError{
		Sentinel: vault.ErrLoginRejected, Doing: doingLogin, RetryAfter: time.Until(until), Reach: vault.ReachUnasked,
		Remedy: fmt.Sprintf("Vault rejected %d logins of this role, or their answers were lost; to keep Vault from locking the role for "+
			"everybody there is no further login until %s: fix role_id and secret_id meanwhile",
			rejected, until.UTC().Format(time.RFC3339)),
	}
}
