package devvault

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"
)

// maxLease is Vault's default lease and its default maximum: 32 days.
const maxLease = 768 * time.Hour

// lifetime is how long tokens of one origin live.
type lifetime struct {
	ttl         time.Duration // 0 is maxLease
	maxTTL      time.Duration // from the token's issue, however often it is renewed; 0 is maxLease
	explicitMax time.Duration // caps even a periodic token; 0 is none
	// every renewal grants exactly this, without a maxTTL; 0 is not periodic
	period time.Duration
}

// token is one token. Its store owns it.
type token struct {
	id, accessor string
	policies     []string
	displayName  string
	path         string // where it was made
	meta         map[string]string
	entityID     string
	parent       *token // revoked with it; nil for an orphan
	role         *appRole
	batch        bool
	renewable    bool
	wrapped      []byte // the answer inside a wrapping token; nil for any other
	life         lifetime
	usesLeft     int // 0 is unlimited, -1 used up
	issued       time.Time
	granted      time.Duration // at issue
	renewed      time.Time     // zero when never
	expires      time.Time     // zero when never
}

func rootToken(id string) *token {
	return &token{id: id, policies: []string{"root"}, displayName: "token",
		path: "auth/token/create"}
}

func (t *token) isRoot() bool { return t != nil && slices.Contains(t.policies, "root") }

func (t *token) kind() string {
	if t.batch {
		return "batch"
	}
	return "service"
}

func (t *token) expired(now time.Time) bool { return !t.expires.IsZero() && !now.Before(t.expires) }

// limits returns the token's lifetime: that of its role now, for an AppRole's token.
func (t *token) limits() lifetime {
	if t.role != nil {
		return t.role.life
	}
	return t.life
}

// extend sets the expiry as at issue or renewal and returns Vault's warnings. asked 0 is the
// token's own ttl. It returns false, and changes nothing, when the token is past its maximum.
func (t *token) extend(asked time.Duration, now time.Time) (warnings []string, ok bool) {
	granted, warnings := t.limits().grant(asked, t.issued, now)
	if granted <= 0 {
		return nil, false
	}
	t.expires = now.Add(granted)
	return warnings, true
}

// grant works out a lease the way Vault does: in whole seconds, and cut to the maximum with a
// warning. It is 0 when the maximum is reached.
func (l lifetime) grant(asked time.Duration, issued, now time.Time) (time.Duration, []string) {
	ttl, limit := l.ttl, l.maxTTL
	if asked > 0 {
		ttl = asked
	}
	if ttl == 0 {
		ttl = maxLease
	}
	if limit == 0 || limit > maxLease {
		limit = maxLease
	}
	if l.period > 0 {
		ttl, limit = l.period, 0
	}
	if l.explicitMax > 0 && (limit == 0 || l.explicitMax < limit) {
		limit = l.explicitMax
	}
	left := issued.Truncate(time.Second).Add(limit).Sub(now.Truncate(time.Second))
	if limit == 0 || ttl <= left {
		return ttl, nil
	}
	if left <= 0 {
		return 0, nil
	}
	warning := fmt.Sprintf(
		"TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly",
		shortDuration(ttl), shortDuration(left))
	return left, []string{warning}
}

// auth describes the token as a login, a creation and a renewal do.
func (t *token) auth(now time.Time) map[string]any {
	var left int64
	if !t.expires.IsZero() {
		left = seconds(t.expires.Sub(now))
	}
	return map[string]any{
		"client_token": t.id, "accessor": t.accessor, "policies": t.policies,
		"token_policies": t.policies,
		"metadata":       t.meta, "lease_duration": left, "renewable": t.renewable,
		"entity_id":  t.entityID,
		"token_type": t.kind(), "orphan": t.parent == nil, "mfa_requirement": nil,
		"num_uses": t.usesLeft,
	}
}

// describe describes the token as a lookup does.
func (t *token) describe(now time.Time) map[string]any {
	d := map[string]any{
		"accessor": t.accessor, "creation_time": t.issued.Unix(),
		"creation_ttl": seconds(t.granted),
		"display_name": t.displayName, "entity_id": t.entityID, "expire_time": nil,
		"explicit_max_ttl": seconds(t.life.explicitMax), "id": t.id,
		"issue_time": timestamp(t.issued),
		"meta":       t.meta, "num_uses": t.usesLeft, "orphan": t.parent == nil, "path": t.path,
		"policies": t.policies, "renewable": t.renewable, "ttl": 0, "type": t.kind(),
	}
	if !t.expires.IsZero() {
		d["expire_time"], d["ttl"] = timestamp(t.expires), seconds(t.expires.Sub(now))
	}
	if period := t.limits().period; period > 0 {
		d["period"] = seconds(period)
	}
	if !t.renewed.IsZero() {
		d["last_renewal"], d["last_renewal_time"] = timestamp(t.renewed), t.renewed.Unix()
	}
	return d
}

// tokenStore holds the tokens. The Vault's lock guards it.
type tokenStore struct {
	byID  map[string]*token
	purge int // number of tokens at which expired ones are thrown out
}

func newTokenStore() *tokenStore { return &tokenStore{byID: make(map[string]*token), purge: 1024} }

// add names the token where it has no name yet, and keeps it.
func (s *tokenStore) add(t *token) {
	if t.id == "" {
		t.id = "hvs." + rand.Text()
		if t.batch {
			t.id = "hvb." + rand.Text()
		}
	}
	if !t.batch {
		t.accessor = rand.Text()[:24]
	}
	if t.issued.IsZero() {
		t.issued = time.Now()
	}
	s.byID[t.id] = t
	s.dropExpired()
}

func (s *tokenStore) dropExpired() {
	if len(s.byID) < s.purge {
		return
	}
	now := time.Now()
	for id, t := range s.byID {
		if t.expired(now) {
			delete(s.byID, id)
		}
	}
	s.purge = max(1024, 2*len(s.byID))
}

// find returns a token that is valid now, or nil.
func (s *tokenStore) find(id string) *token {
	t := s.byID[id]
	if t == nil {
		return nil
	}
	if t.expired(time.Now()) {
		s.revoke(t)
		return nil
	}
	return t
}

func (s *tokenStore) findAccessor(accessor string) *token {
	for id, t := range s.byID {
		if accessor != "" && t.accessor == accessor {
			return s.find(id)
		}
	}
	return nil
}

// revoke ends a token and its children.
func (s *tokenStore) revoke(t *token) {
	delete(s.byID, t.id)
	for _, child := range s.byID {
		if child.parent == t {
			s.revoke(child)
		}
	}
}

// use counts one use of a token that has a number of them.
func (s *tokenStore) use(t *token) {
	if t.usesLeft == 0 {
		return
	}
	t.usesLeft--
	if t.usesLeft == 0 {
		t.usesLeft = -1
	}
}

// spend ends a token whose last use is over.
func (s *tokenStore) spend(t *token) {
	if t.usesLeft < 0 {
		s.revoke(t)
	}
}

// shortDuration writes whole seconds as Vault does: "1h" rather than Go's "1h0m0s".
func shortDuration(d time.Duration) string {
	text := d.Truncate(time.Second).String()
	if d >= time.Minute && d%time.Minute == 0 {
		text = text[:len(text)-len("0s")]
	}
	if d >= time.Hour && d%time.Hour == 0 {
		text = text[:len(text)-len("0m")]
	}
	return text
}
