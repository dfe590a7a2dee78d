package devvault

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// appRoleBackend is one AppRole auth method.
type appRoleBackend struct {
	vault *Vault
	at    string // its path below auth/, ends in "/"
	roles map[string]*appRole
}

// appRole is one role: what its tokens are like, and the secret IDs that get them.
type appRole struct {
	name             string
	roleID           string
	entityID         string
	policies         []string
	noDefaultPolicy  bool
	tokenType        string // default, service or batch
	numUses          int
	life             lifetime
	boundCIDRs       []string
	secretBoundCIDRs []string
	bindSecretID     bool
	secretIDTTL      time.Duration
	secretIDNumUses  int
	secretIDs        map[string]*secretID
	rejected         rejections
	deleted          bool
}

// secretID is one secret ID of a role.
type secretID struct {
	accessor string
	usesLeft int // 0 is unlimited
	created  time.Time
	expires  time.Time // zero when never
}

func newAppRoleMount(v *Vault, at, description string) *mount {
	m := newMount("approle", description,
		&appRoleBackend{vault: v, at: at, roles: make(map[string]*appRole)})
	m.accessor = "auth_" + m.accessor
	m.options = map[string]any{}
	return m
}

func (b *appRoleBackend) exists(rest string) bool {
	parts := strings.Split(rest, "/")
	return len(parts) != 2 || parts[0] != "role" || b.roles[strings.ToLower(parts[1])] != nil
}

func (b *appRoleBackend) handle(r *request) (*answer, error) {
	rest, ok := strings.CutPrefix(r.rest, "role/")
	if !ok {
		return nil, errUnsupportedPath
	}
	name, below, _ := strings.Cut(rest, "/")
	name = strings.ToLower(name)
	if name == "" {
		return b.list(r)
	}
	switch role := b.roles[name]; {
	case below == "":
		return b.handleRole(r, name)
	case role == nil && r.op != opRead:
		return nil, &apiError{http.StatusNotFound,
			[]string{"role " + quoted(name) + " does not exist"}}
	case role == nil:
		return nil, errNotFound
	default:
		return role.handle(r, below)
	}
}

func (b *appRoleBackend) list(r *request) (*answer, error) {
	if r.op != opList {
		return nil, errUnsupportedOperation
	}
	if len(b.roles) == 0 {
		return nil, errNotFound
	}
	return &answer{data: map[string]any{"keys": slices.Sorted(maps.Keys(b.roles))}}, nil
}

func (b *appRoleBackend) handleRole(r *request, name string) (*answer, error) {
	switch r.op {
	case opCreate, opUpdate:
		_, err := b.writeRole(name, r.body)
		return nil, err
	case opDelete:
		if role := b.roles[name]; role != nil {
			role.deleted = true
		}
		delete(b.roles, name)
		return nil, nil
	case opRead:
		role := b.roles[name]
		if role == nil {
			return nil, errNotFound
		}
		return &answer{data: role.describe()}, nil
	}
	return nil, errUnsupportedOperation
}

// writeRole makes a role or changes what the body names of it.
func (b *appRoleBackend) writeRole(name string, body fields) (*appRole, error) {
	name = strings.ToLower(name)
	next := appRole{
		name: name, roleID: newUUID(), entityID: newUUID(), tokenType: "default",
		bindSecretID: true,
		policies:     []string{}, boundCIDRs: []string{}, secretIDs: make(map[string]*secretID),
	}
	role := b.roles[name]
	if role != nil {
		next = *role
	}
	if err := next.configure(body); err != nil {
		return nil, err
	}
	if err := next.check(); err != nil {
		return nil, err
	}
	if role == nil {
		role = new(appRole)
		b.roles[name] = role
	}
	*role = next // in place: the role's tokens hold the pointer
	return role, nil
}

func (role *appRole) configure(body fields) error {
	for name, target := range map[string]*time.Duration{
		"token_ttl": &role.life.ttl, "token_max_ttl": &role.life.maxTTL,
		"token_period":           &role.life.period,
		"token_explicit_max_ttl": &role.life.explicitMax, "secret_id_ttl": &role.secretIDTTL,
	} {
		if err := body.setDuration(name, target); err != nil {
			return err
		}
	}
	for name, target := range map[string]*int{
		"token_num_uses": &role.numUses, "secret_id_num_uses": &role.secretIDNumUses,
	} {
		if err := body.setInt(name, target); err != nil {
			return err
		}
	}
	for name, target := range map[string]*bool{
		"bind_secret_id": &role.bindSecretID, "token_no_default_policy": &role.noDefaultPolicy,
	} {
		if err := body.setBool(name, target); err != nil {
			return err
		}
	}
	body.setList("token_policies", &role.policies)
	body.setList("token_bound_cidrs", &role.boundCIDRs)
	body.setList("secret_id_bound_cidrs", &role.secretBoundCIDRs)
	if kind := body.text("token_type"); kind != "" {
		role.tokenType = strings.TrimPrefix(kind, "default-")
	}
	if id := body.text("role_id"); id != "" {
		role.roleID = id
	}
	return nil
}

// check refuses what Vault refuses about a role.
func (role *appRole) check() error {
	const batch = "'token_type' cannot be 'batch' or 'default_batch' when set to generate "
	switch {
	case role.life.maxTTL > 0 && role.life.ttl > role.life.maxTTL:
		return badRequest("'token_ttl' cannot be greater than 'token_max_ttl'")
	case role.tokenType == "batch" && role.numUses != 0:
		return badRequest(batch + "tokens with limited use count")
	case role.tokenType == "batch" && role.life.period != 0:
		return badRequest(batch + "periodic tokens")
	case !slices.Contains([]string{"default", "service", "batch"}, role.tokenType):
		return badRequest("invalid 'token_type' value %q", role.tokenType)
	case !role.bindSecretID && len(role.boundCIDRs) == 0 && len(role.secretBoundCIDRs) == 0:
		return &apiError{http.StatusInternalServerError,
			[]string{multiError("at least one constraint should be enabled on the role")}}
	}
	return nil
}

func (role *appRole) describe() map[string]any {
	return map[string]any{
		"bind_secret_id": role.bindSecretID, "local_secret_ids": false,
		"secret_id_bound_cidrs": role.secretBoundCIDRs,
		"secret_id_num_uses":    role.secretIDNumUses, "secret_id_ttl": seconds(role.secretIDTTL),
		"token_bound_cidrs":       role.boundCIDRs,
		"token_explicit_max_ttl":  seconds(role.life.explicitMax),
		"token_max_ttl":           seconds(role.life.maxTTL),
		"token_no_default_policy": role.noDefaultPolicy,
		"token_num_uses":          role.numUses, "token_period": seconds(role.life.period),
		"token_policies": role.policies,
		"token_ttl":      seconds(role.life.ttl), "token_type": role.tokenType,
	}
}

// handle answers the paths below a role.
func (role *appRole) handle(r *request, below string) (*answer, error) {
	switch below {
	case "role-id":
		return role.handleRoleID(r)
	case "secret-id/":
		return role.listSecretIDs(), nil
	case "secret-id", "custom-secret-id", "secret-id/lookup", "secret-id/destroy",
		"secret-id-accessor/destroy":
		if r.op != opUpdate {
			return nil, errUnsupportedOperation
		}
		return role.handleSecretID(r, below)
	}
	return nil, errUnsupportedPath
}

func (role *appRole) handleRoleID(r *request) (*answer, error) {
	switch r.op {
	case opRead:
		return &answer{data: map[string]any{"role_id": role.roleID}}, nil
	case opUpdate:
		return nil, role.configure(fields{"role_id": r.body.text("role_id")})
	}
	return nil, errUnsupportedOperation
}

func (role *appRole) handleSecretID(r *request, below string) (*answer, error) {
	switch below {
	case "secret-id":
		return role.newSecretID(r, newUUID())
	case "custom-secret-id":
		return role.newSecretID(r, r.body.text("secret_id"))
	case "secret-id/lookup":
		return role.lookUpSecretID(r.body.text("secret_id")), nil
	case "secret-id/destroy":
		delete(role.secretIDs, r.body.text("secret_id"))
	case "secret-id-accessor/destroy":
		accessor := r.body.text("secret_id_accessor")
		maps.DeleteFunc(role.secretIDs, func(_ string, s *secretID) bool {
			return s.accessor == accessor
		})
	}
	return nil, nil
}

func (role *appRole) newSecretID(r *request, id string) (*answer, error) {
	ttl, uses := role.secretIDTTL, role.secretIDNumUses
	if err := r.body.setDuration("ttl", &ttl); err != nil {
		return nil, err
	}
	if err := r.body.setInt("num_uses", &uses); err != nil {
		return nil, err
	}
	switch {
	case id == "":
		return nil, badRequest("missing secret_id")
	case role.secretIDNumUses > 0 && (uses == 0 || uses > role.secretIDNumUses):
		return nil, badRequest("num_uses cannot be higher than the role's secret_id_num_uses")
	case role.secretIDTTL > 0 && (ttl == 0 || ttl > role.secretIDTTL):
		return nil, badRequest("ttl cannot be longer than the role's secret_id_ttl")
	}
	id, s := role.addSecretID(id, ttl, uses)
	return &answer{accessor: s.accessor, data: map[string]any{
		"secret_id": id, "secret_id_accessor": s.accessor, "secret_id_num_uses": uses,
		"secret_id_ttl": seconds(ttl),
	}}, nil
}

func (role *appRole) addSecretID(id string, ttl time.Duration, uses int) (string, *secretID) {
	s := &secretID{accessor: newUUID(), usesLeft: uses, created: time.Now()}
	if ttl > 0 {
		s.expires = s.created.Add(ttl)
	}
	role.secretIDs[id] = s
	return id, s
}

func (role *appRole) listSecretIDs() *answer {
	accessors := []string{}
	for _, s := range role.secretIDs {
		accessors = append(accessors, s.accessor)
	}
	slices.Sort(accessors)
	return &answer{data: map[string]any{"keys": accessors}}
}

func (role *appRole) lookUpSecretID(id string) *answer {
	s := role.secretIDs[id]
	if s == nil {
		return nil
	}
	return &answer{data: map[string]any{
		"secret_id_accessor": s.accessor, "secret_id_num_uses": s.usesLeft,
		"creation_time": timestamp(s.created), "expiration_time": timestamp(s.expires),
	}}
}

func quoted(name string) string { return strconv.Quote(name) }
