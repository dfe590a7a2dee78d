package devvault

import (
	"strings"
	"time"
)

// tokenRole is the part of a role, of whatever auth method, that says what its tokens are like.
type tokenRole struct {
	name            string
	entityID        string
	policies        []string
	noDefaultPolicy bool
	tokenType       string // default, service or batch
	numUses         int
	life            lifetime
	boundCIDRs      []string
	deleted         bool
}

func newTokenRole(name string) tokenRole {
	return tokenRole{name: name, entityID: newUUID(), tokenType: "default", policies: []string{}, boundCIDRs: []string{}}
}

// configure changes what the body names.
func (role *tokenRole) configure(body fields) error {
	for name, target := range map[string]*time.Duration{
		"token_ttl": &role.life.ttl, "token_max_ttl": &role.life.maxTTL, "token_period": &role.life.period,
		"token_explicit_max_ttl": &role.life.explicitMax,
	} {
		if err := body.setDuration(name, target); err != nil {
			return err
		}
	}
	if err := body.setInt("token_num_uses", &role.numUses); err != nil {
		return err
	}
	if err := body.setBool("token_no_default_policy", &role.noDefaultPolicy); err != nil {
		return err
	}
	body.setList("token_policies", &role.policies)
	body.setList("token_bound_cidrs", &role.boundCIDRs)
	if kind := body.text("token_type"); kind != "" {
		role.tokenType = strings.TrimPrefix(kind, "default-")
	}
	return nil
}

// issue makes a token of the role at the auth mount.
func (v *Vault) issue(role *tokenRole, at string, meta map[string]string) *answer {
	now := time.Now()
	t := &token{
		policies: policySet(role.policies, role.noDefaultPolicy), displayName: strings.TrimSuffix(at, "/"),
		path: "auth/" + at + "login", meta: meta, entityID: role.entityID,
		role: role, batch: role.tokenType == "batch", renewable: role.tokenType != "batch",
		usesLeft: role.numUses, issued: now,
	}
	t.life.explicitMax = role.life.explicitMax
	warnings, _ := t.extend(0, now)
	t.granted = t.expires.Sub(now)
	v.tokens.add(t)
	return &answer{auth: t.auth(now), warnings: warnings, accessor: t.accessor}
}
