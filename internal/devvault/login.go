package devvault

import (
	"net/http"
	"time"
)

const (
	lockoutThreshold = 5
	lockoutDuration  = 15 * time.Minute // also how long a rejected login is remembered
)

// rejections counts a role's rejected logins in a row.
type rejections struct {
	count int
	last  time.Time
}

func (j *rejections) add(now time.Time) {
	if now.Sub(j.last) >= lockoutDuration {
		j.count = 0
	}
	j.count++
	j.last = now
}

func (j *rejections) locked(now time.Time) bool {
	return j.count >= lockoutThreshold && now.Sub(j.last) < lockoutDuration
}

var errBadCredentials = badRequest("invalid role or secret ID")

// logIn exchanges a role ID and a secret ID for a token. Only a wrong secret ID counts towards the
// lockout: an unknown role has nothing to lock, and a missing secret ID is a mistake, not a guess.
func (b *appRoleBackend) logIn(r *request) (*answer, error) {
	id := r.body.text("role_id")
	if id == "" {
		return nil, &apiError{http.StatusInternalServerError,
			[]string{"failed to determine alias name from login request"}}
	}
	role := b.findRole(id)
	if role == nil {
		return nil, errBadCredentials
	}
	now := time.Now()
	if role.rejected.locked(now) {
		return nil, errForbidden
	}
	if role.bindSecretID {
		if r.body.text("secret_id") == "" {
			return nil, badRequest("missing secret_id")
		}
		if !role.useSecretID(r.body.text("secret_id"), now) {
			role.rejected.add(now)
			return nil, errBadCredentials
		}
	}
	role.rejected = rejections{}
	return b.issue(role, now), nil
}

func (b *appRoleBackend) findRole(id string) *appRole {
	for _, role := range b.roles {
		if role.roleID == id {
			return role
		}
	}
	return nil
}

// useSecretID reports whether the secret ID is good, and counts its use.
func (role *appRole) useSecretID(id string, now time.Time) bool {
	s := role.secretIDs[id]
	if s == nil {
		return false
	}
	if !s.expires.IsZero() && !now.Before(s.expires) {
		delete(role.secretIDs, id)
		return false
	}
	if s.usesLeft == 1 {
		delete(role.secretIDs, id)
	}
	if s.usesLeft > 0 {
		s.usesLeft--
	}
	return true
}

func (b *appRoleBackend) issue(role *appRole, now time.Time) *answer {
	t := &token{
		policies: policySet(role.policies, role.noDefaultPolicy), displayName: b.at[:len(b.at)-1],
		path: "auth/" + b.at + "login", meta: map[string]string{"role_name": role.name},
		entityID: role.entityID,
		role:     role, batch: role.tokenType == "batch", renewable: role.tokenType != "batch",
		usesLeft: role.numUses, issued: now,
	}
	t.life.explicitMax = role.life.explicitMax
	warnings, _ := t.extend(0, now)
	t.granted = t.expires.Sub(now)
	b.vault.tokens.add(t)
	return &answer{auth: t.auth(now), warnings: warnings, accessor: t.accessor}
}

// unlock forgets the rejected logins of the role with this role ID.
func (b *appRoleBackend) unlock(roleID string) {
	if role := b.findRole(roleID); role != nil {
		role.rejected = rejections{}
	}
}
