package devvault

import (
	"slices"
	"strings"
)

// authenticate finds the token that the request comes with and counts its use.
func (v *Vault) authenticate(r *request) error {
	if r.tokenID == "" {
		return errForbidden
	}
	t := v.tokens.find(r.tokenID)
	if t == nil {
		return errInvalidToken
	}
	r.token = t
	v.tokens.use(t)
	return nil
}

// authorize decides whether the token's policies allow the request.
func (v *Vault) authorize(r *request) error {
	// which shows what policies allow
	if r.token.isRoot() || strings.HasPrefix(r.path, "sys/internal/ui/mounts") {
		return nil
	}
	allowed := v.capabilities(r.token, r.path, r.op == opList)
	if !slices.Contains(allowed, string(r.op)) {
		return errDenied
	}
	if needsSudo(r) && !slices.Contains(allowed, "sudo") {
		return errDenied
	}
	return nil
}

// needsSudo reports whether Vault guards the path with the sudo capability.
func needsSudo(r *request) bool {
	if r.path == "auth/token/accessors/" {
		return true
	}
	return strings.HasPrefix(r.path, "sys/auth/") && r.op != opRead
}

// capabilities returns what the token may do at the path. No capability and "deny" both mean
// nothing.
func (v *Vault) capabilities(t *token, path string, list bool) []string {
	if t.isRoot() {
		return []string{"root"}
	}
	var rules []rule
	for _, name := range t.policies {
		if p := v.policies[name]; p != nil {
			rules = append(rules, p.rules...)
		}
	}
	found := capabilitiesAt(rules, path)
	if found == nil && list {
		found = capabilitiesAt(rules, strings.TrimSuffix(path, "/"))
	}
	if slices.Contains(found, "deny") {
		return []string{"deny"}
	}
	return found
}

// mayKnow reports whether any of the token's policies say something about what is below the mount.
func (v *Vault) mayKnow(t *token, at string) bool {
	if t.isRoot() {
		return true
	}
	for _, name := range t.policies {
		p := v.policies[name]
		if p == nil {
			continue
		}
		for _, rule := range p.rules {
			if rule.reaches(at) {
				return true
			}
		}
	}
	return false
}
