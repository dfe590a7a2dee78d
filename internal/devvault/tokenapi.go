package devvault

import (
	"net/http"
	"slices"
	"time"
)

// tokenBackend answers auth/token/.
type tokenBackend struct{ vault *Vault }

func (b *tokenBackend) exists(string) bool { return true }

func (b *tokenBackend) handle(r *request) (*answer, error) {
	switch r.rest {
	case "create", "create-orphan":
		return b.create(r)
	case "lookup-self", "renew-self", "revoke-self":
		return b.self(r)
	case "lookup", "renew", "revoke":
		return b.byID(r)
	case "lookup-accessor", "revoke-accessor":
		return b.byAccessor(r)
	case "accessors/":
		return b.list(r)
	}
	return nil, errUnsupportedPath
}

func (b *tokenBackend) self(r *request) (*answer, error) {
	switch {
	case r.rest == "lookup-self" && (r.op == opRead || r.op == opUpdate):
		return lookUp(r.token), nil
	case r.op != opUpdate:
		return nil, errUnsupportedOperation
	case r.rest == "renew-self":
		return renew(r.token, r)
	}
	return b.revoke(r.token)
}

func (b *tokenBackend) byID(r *request) (*answer, error) {
	id := r.body.text("token")
	t := b.vault.tokens.find(id)
	switch {
	case id == "":
		return nil, badRequest("missing token ID")
	case r.rest == "revoke" && t == nil:
		return nil, nil
	case r.rest == "revoke":
		return b.revoke(t)
	case t == nil:
		return nil, &apiError{http.StatusForbidden, []string{"bad token"}}
	case r.rest == "renew":
		return renew(t, r)
	}
	return lookUp(t), nil
}

func (b *tokenBackend) byAccessor(r *request) (*answer, error) {
	t := b.vault.tokens.findAccessor(r.body.text("accessor"))
	switch {
	case t == nil && r.rest == "revoke-accessor":
		return &answer{warnings: []string{"No token found with this accessor"}}, nil
	case t == nil:
		return nil, badRequest("%s", multiError("invalid accessor"))
	case r.rest == "revoke-accessor":
		return b.revoke(t)
	}
	a := lookUp(t)
	a.data["id"] = ""
	return a, nil
}

func (b *tokenBackend) list(r *request) (*answer, error) {
	if r.op != opList {
		return nil, errUnsupportedOperation
	}
	accessors := []string{}
	for _, t := range b.vault.tokens.byID {
		if !t.batch {
			accessors = append(accessors, t.accessor)
		}
	}
	return &answer{data: map[string]any{"keys": accessors}}, nil
}

func lookUp(t *token) *answer { return &answer{data: t.describe(time.Now())} }

func (b *tokenBackend) revoke(t *token) (*answer, error) {
	if t.batch {
		return nil, badRequest("batch tokens cannot be revoked")
	}
	b.vault.tokens.revoke(t)
	return nil, nil
}

func renew(t *token, r *request) (*answer, error) {
	var increment time.Duration
	if err := r.body.setDuration("increment", &increment); err != nil {
		return nil, badRequest("Field validation failed: %v", err)
	}
	switch {
	case t.batch:
		return nil, badRequest("batch tokens cannot be renewed")
	case !t.renewable:
		return nil, badRequest("lease is not renewable")
	case t.role != nil && t.role.deleted:
		return nil, &apiError{http.StatusInternalServerError,
			[]string{multiError("failed to renew entry: role " + quoted(t.role.name) +
				" does not exist during renewal")}}
	}
	now := time.Now()
	warnings, ok := t.extend(increment, now)
	if !ok {
		return nil, &apiError{http.StatusInternalServerError,
			[]string{multiError("past the max TTL, cannot renew")}}
	}
	t.renewed = now
	return &answer{auth: t.auth(now), warnings: warnings}, nil
}

func (b *tokenBackend) create(r *request) (*answer, error) {
	t := &token{
		displayName: "token", path: "auth/token/create", parent: r.token, renewable: true,
		meta: r.body.strings("meta"), batch: r.body.text("type") == "batch", issued: time.Now(),
	}
	if name := r.body.text("display_name"); name != "" {
		t.displayName = "token-" + name
	}
	orphan := r.rest == "create-orphan"
	if err := t.configure(r.body, &orphan); err != nil {
		return nil, err
	}
	if orphan {
		t.parent = nil
	}
	if err := t.inherit(r); err != nil {
		return nil, err
	}
	var warnings []string
	if !t.isRoot() || t.life.ttl > 0 || t.life.period > 0 {
		warnings, _ = t.extend(0, t.issued)
		t.granted = t.expires.Sub(t.issued)
	} else {
		t.renewable = false
	}
	b.vault.tokens.add(t)
	return &answer{auth: t.auth(t.issued), warnings: warnings, accessor: t.accessor}, nil
}

// configure takes over what the request says about the token to be made.
func (t *token) configure(body fields, orphan *bool) error {
	body.setList("policies", &t.policies)
	for name, target := range map[string]*time.Duration{
		"ttl": &t.life.ttl, "explicit_max_ttl": &t.life.explicitMax, "period": &t.life.period,
	} {
		if err := body.setDuration(name, target); err != nil {
			return err
		}
	}
	if err := body.setInt("num_uses", &t.usesLeft); err != nil {
		return err
	}
	if err := body.setBool("renewable", &t.renewable); err != nil {
		return err
	}
	t.renewable = t.renewable && !t.batch
	return body.setBool("no_parent", orphan)
}

// inherit settles the token's policies: those of the caller unless it asked for others, which only
// a root token may widen.
func (t *token) inherit(r *request) error {
	if len(t.policies) == 0 {
		t.policies = slices.Clone(r.token.policies)
	}
	if !r.token.isRoot() {
		for _, name := range t.policies {
			if name != "default" && !slices.Contains(r.token.policies, name) {
				return badRequest("child policies must be subset of parent")
			}
		}
	}
	if t.isRoot() {
		t.policies = []string{"root"}
		return nil
	}
	var withoutDefault bool
	if err := r.body.setBool("no_default_policy", &withoutDefault); err != nil {
		return err
	}
	t.policies = policySet(t.policies, withoutDefault)
	return nil
}

// policySet sorts the names, drops doubles and adds the default policy unless told not to.
func policySet(names []string, withoutDefault bool) []string {
	set := slices.Clone(names)
	if !withoutDefault {
		set = append(set, "default")
	}
	slices.Sort(set)
	return slices.Compact(set)
}
