package devvault

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// sysBackend answers sys/.
type sysBackend struct{ vault *Vault }

func (b *sysBackend) exists(string) bool { return true }

// state answers what needs neither a token nor an unsealed Vault; nil for any other request.
func (v *Vault) state(r *request) *answer {
	switch r.path {
	case "sys/health":
		return v.health()
	case "sys/seal-status":
		return v.sealStatus()
	case "sys/leader":
		return &answer{bare: true, data: map[string]any{
			"ha_enabled": false, "is_self": false, "leader_address": "",
			"leader_cluster_address": "",
		}}
	}
	return nil
}

func (v *Vault) health() *answer {
	a := &answer{bare: true, data: map[string]any{
		"initialized": true, "sealed": v.sealed, "standby": v.sealed, "performance_standby": false,
		"replication_performance_mode": "disabled", "replication_dr_mode": "disabled",
		"enterprise":      false,
		"server_time_utc": time.Now().Unix(), "version": Version,
	}}
	if v.sealed {
		a.status = http.StatusServiceUnavailable
		return a
	}
	a.data["cluster_name"], a.data["cluster_id"] = "devvault", v.cluster
	return a
}

func (v *Vault) sealStatus() *answer {
	return &answer{bare: true, data: map[string]any{
		"type": "shamir", "initialized": true, "sealed": v.sealed, "t": 1, "n": 1, "progress": 0,
		"nonce":   "",
		"version": Version, "migration": false, "recovery_seal": false, "storage_type": "inmem",
	}}
}

// handleOpen answers what an unsealed Vault tells without a token, or in exchange for one of
// another kind: nil and nil for any other request.
func (v *Vault) handleOpen(r *request, m *mount) (*answer, error) {
	switch r.path {
	case "sys/wrapping/unwrap":
		return v.unwrap(r)
	case "sys/wrapping/lookup":
		return v.lookUpWrapping(r)
	case "sys/internal/ui/mounts":
		if r.tokenID == "" {
			return &answer{data: map[string]any{"auth": map[string]any{},
				"secret": map[string]any{}}}, nil
		}
	}
	if m != nil && r.rest == "login" {
		if b, ok := m.backend.(*appRoleBackend); ok {
			return b.logIn(r)
		}
	}
	return nil, nil
}

func (b *sysBackend) handle(r *request) (*answer, error) {
	section, name, _ := strings.Cut(r.rest, "/")
	switch section {
	case "mounts":
		return b.handleMounts(r, mountTable{b.vault.secrets, "secret engine mount",
			b.makeSecretMount}, name)
	case "auth":
		return b.handleMounts(r, mountTable{b.vault.auths, "auth engine", b.makeAuthMount}, name)
	case "policies":
		if acl, ok := strings.CutPrefix(name, "acl"); ok {
			return b.handlePolicy(r, strings.TrimPrefix(acl, "/"), "policy")
		}
	case "policy":
		return b.handlePolicy(r, name, "rules")
	case "locked-users":
		return b.unlock(r, name)
	}
	switch r.rest {
	case "wrapping/wrap":
		return wrapGiven(r)
	case "capabilities-self":
		return b.capabilitiesSelf(r)
	}
	if path, ok := strings.CutPrefix(r.rest, "internal/ui/mounts"); ok {
		return b.uiMounts(r, strings.TrimPrefix(path, "/"))
	}
	return nil, errUnsupportedPath
}

// mountTable is what sys/mounts and sys/auth do not have in common.
type mountTable struct {
	mounts map[string]*mount
	noun   string
	build  func(r *request, at string) (*mount, error)
}

// handleMounts answers sys/mounts and sys/auth.
func (b *sysBackend) handleMounts(r *request, table mountTable, name string) (*answer, error) {
	mounts := table.mounts
	if name == "" {
		return &answer{flat: true, data: infos(mounts)}, nil
	}
	at := strings.TrimSuffix(name, "/") + "/"
	switch r.op {
	case opRead:
		m := mounts[at]
		if m == nil {
			return nil, badRequest("No %s at %s", table.noun, at)
		}
		return &answer{flat: true, data: m.info()}, nil
	case opDelete:
		delete(mounts, at)
		return nil, nil
	case opUpdate:
		return nil, table.add(r, at)
	}
	return nil, errUnsupportedOperation
}

func (table mountTable) add(r *request, at string) error {
	if !r.body.has("type") {
		return badRequest("backend type must be specified as a string")
	}
	if taken := conflict(table.mounts, at); taken != "" {
		return badRequest("path is already in use at %s", taken)
	}
	m, err := table.build(r, at)
	if err != nil {
		return err
	}
	table.mounts[at] = m
	return nil
}

func infos(mounts map[string]*mount) map[string]any {
	all := make(map[string]any, len(mounts))
	for at, m := range mounts {
		all[at] = m.info()
	}
	return all
}

func (b *sysBackend) makeSecretMount(r *request, _ string) (*mount, error) {
	options, _ := r.body["options"].(map[string]any)
	description := r.body.text("description")
	switch kind := r.body.text("type"); {
	case kind == "kv" && options["version"] == "2", kind == "kv-v2":
		return newKVMount("2", description), nil
	case kind == "kv", kind == "kv-v1":
		return newKVMount("1", description), nil
	case kind == "transit":
		m := newMount(kind, description, unsupportedBackend{})
		m.options = map[string]any{}
		return m, nil
	default:
		return nil, badRequest("plugin not found in the catalog: %s", kind)
	}
}

func (b *sysBackend) makeAuthMount(r *request, at string) (*mount, error) {
	if kind := r.body.text("type"); kind != "approle" {
		return nil, badRequest("plugin not found in the catalog: %s", kind)
	}
	return newAppRoleMount(b.vault, at, r.body.text("description")), nil
}

// uiMounts answers the CLI, which asks what is mounted where before it reads a secret.
func (b *sysBackend) uiMounts(r *request, path string) (*answer, error) {
	if path == "" {
		return &answer{data: map[string]any{
			"secret": infos(b.knownTo(r.token, b.vault.secrets, "")),
			"auth":   infos(b.knownTo(r.token, b.vault.auths, "auth/")),
		}}, nil
	}
	at, m := b.vault.findMount(path)
	if m == nil || !b.vault.mayKnow(r.token, at) {
		return nil, &apiError{http.StatusForbidden,
			[]string{"preflight capability check returned 403, " +
				"please ensure client's policies grant access to path " +
				quoted(strings.TrimSuffix(path, "/")+"/")}}
	}
	data := m.info()
	data["path"] = at
	return &answer{data: data}, nil
}

func (b *sysBackend) knownTo(t *token, mounts map[string]*mount, prefix string) map[string]*mount {
	known := maps.Clone(mounts)
	maps.DeleteFunc(known, func(at string, _ *mount) bool { return !b.vault.mayKnow(t, prefix+at) })
	return known
}

// handlePolicy answers sys/policies/acl, and sys/policy, which calls the policy's text by another
// name.
func (b *sysBackend) handlePolicy(r *request, name, textField string) (*answer, error) {
	name = strings.ToLower(name)
	switch {
	case name == "" && (r.op == opList || r.op == opRead):
		return b.listPolicies(textField == "rules"), nil
	case name == "":
		return nil, errUnsupportedOperation
	}
	switch r.op {
	case opRead:
		p := b.vault.policies[name]
		if p == nil {
			return nil, errNotFound
		}
		return &answer{flat: textField == "rules",
			data: map[string]any{"name": name, textField: p.text}}, nil
	case opUpdate:
		return nil, b.writePolicy(name, cmp.Or(r.body.text("policy"), r.body.text("rules")))
	case opDelete:
		if name == "default" || name == "root" {
			return nil, badRequest("cannot delete %s policy", name)
		}
		delete(b.vault.policies, name)
		return nil, nil
	}
	return nil, errUnsupportedOperation
}

func (b *sysBackend) listPolicies(old bool) *answer {
	names := slices.Sorted(maps.Keys(b.vault.policies))
	names = slices.DeleteFunc(names, func(name string) bool {
		return name == "root" || name == "response-wrapping"
	})
	names = append(names, "root")
	a := &answer{flat: old, data: map[string]any{"keys": names}}
	if old {
		a.data["policies"] = names
	}
	return a
}

func (b *sysBackend) writePolicy(name, text string) error {
	switch {
	case name == "root":
		return badRequest("cannot update \"root\" policy")
	case text == "":
		return badRequest("'policy' parameter not supplied or empty")
	}
	rules, err := parsePolicy(text)
	if err != nil {
		return err
	}
	b.vault.policies[name] = &policy{text: text, rules: rules}
	return nil
}

// unlock answers sys/locked-users/ACCESSOR/unlock/ROLE_ID.
func (b *sysBackend) unlock(r *request, name string) (*answer, error) {
	accessor, roleID, ok := strings.Cut(name, "/unlock/")
	if !ok || r.op != opUpdate {
		return nil, errUnsupportedPath
	}
	for _, m := range b.vault.auths {
		if backend, isAppRole := m.backend.(*appRoleBackend); isAppRole && m.accessor == accessor {
			backend.unlock(roleID)
		}
	}
	return nil, nil
}

func (b *sysBackend) capabilitiesSelf(r *request) (*answer, error) {
	var paths []string
	r.body.setList("paths", &paths)
	r.body.setList("path", &paths)
	data := make(map[string]any)
	for _, path := range paths {
		found := b.vault.capabilities(r.token, path, strings.HasSuffix(path, "/"))
		if len(found) == 0 {
			found = []string{"deny"}
		}
		data[path] = found
	}
	return &answer{flat: true, data: data}, nil
}
