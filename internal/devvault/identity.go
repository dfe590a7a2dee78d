package devvault

import (
	"maps"
	"net/http"
	"strings"
)

// identityBackend is one auth method by which somebody shows an identity that others have given:
// kubernetes, jwt or cert.
type identityBackend struct {
	vault   *Vault
	at      string // its path below auth/, ends in "/"
	rolesAt string // what its roles are below
	config  fields // nil before it is configured
	roles   map[string]*identityRole
	verify  func(r *request, b *identityBackend) (*identityRole, map[string]string, error)
}

// identityRole is one role: what its tokens are like, and who gets them.
type identityRole struct {
	tokenRole
	bound fields // as it was written
}

func newIdentityMount(v *Vault, at, kind, description string) *mount {
	b := &identityBackend{vault: v, at: at, rolesAt: "role/", roles: make(map[string]*identityRole)}
	switch kind {
	case "kubernetes":
		b.verify = verifyServiceAccount
	case "jwt":
		b.verify = verifyJWT
	case "cert":
		b.verify, b.rolesAt = verifyCertificate, "certs/"
	}
	m := newMount(kind, description, b)
	m.accessor = "auth_" + m.accessor
	m.options = map[string]any{}
	return m
}

func (b *identityBackend) exists(rest string) bool {
	name, isRole := strings.CutPrefix(rest, b.rolesAt)
	return !isRole || b.roles[name] != nil
}

func (b *identityBackend) handle(r *request) (*answer, error) {
	name, isRole := strings.CutPrefix(r.rest, b.rolesAt)
	isWrite := r.op == opCreate || r.op == opUpdate
	switch {
	case r.rest == "config" && isWrite:
		b.config = maps.Clone(r.body)
		return nil, nil
	case isRole && isWrite:
		return nil, b.writeRole(name, r.body)
	case isRole && r.op == opDelete:
		if role := b.roles[name]; role != nil {
			role.deleted = true
		}
		delete(b.roles, name)
		return nil, nil
	}
	return nil, errUnsupportedPath
}

func (b *identityBackend) writeRole(name string, body fields) error {
	role := b.roles[name]
	if role == nil {
		role = &identityRole{tokenRole: newTokenRole(name), bound: fields{}}
	}
	if err := role.configure(body); err != nil {
		return err
	}
	maps.Copy(role.bound, body)
	b.roles[name] = role
	return nil
}

func (b *identityBackend) logIn(r *request) (*answer, error) {
	role, meta, err := b.verify(r, b)
	if err != nil {
		return nil, err
	}
	return b.vault.issue(&role.tokenRole, b.at, meta), nil
}

// allows reports whether the role names the text in a list of its own, or says nothing there.
func (role *identityRole) allows(parameter, text string) bool {
	var allowed []string
	role.bound.setList(parameter, &allowed)
	if len(allowed) == 0 {
		return true
	}
	for _, one := range allowed {
		if one == "*" || one == text {
			return true
		}
	}
	return false
}

func forbidden(text string) *apiError { return &apiError{http.StatusForbidden, []string{text}} }

func internalError(text string) *apiError {
	return &apiError{http.StatusInternalServerError, []string{text}}
}
