package devvault

import (
	"crypto/rand"
	"maps"
	"slices"
	"strings"
)

// backend answers the requests below one mount. It is called with the Vault's lock held.
type backend interface {
	// handle carries out a request whose rest is the path below the mount.
	handle(r *request) (*answer, error)
	// exists reports whether a write to the path is an update rather than a create.
	exists(rest string) bool
}

// mount is a secrets engine or an auth method.
type mount struct {
	kind        string // Vault's type, for example "kv"
	description string
	accessor    string
	uuid        string
	options     map[string]any
	backend     backend
}

func newMount(kind, description string, b backend) *mount {
	return &mount{
		kind: kind, description: description, backend: b,
		accessor: kind + "_" + strings.ToLower(rand.Text()[:8]), uuid: newUUID(),
	}
}

func newKVMount(version, description string) *mount {
	m := newMount("kv", description, newKV2Backend())
	if version == "1" {
		m.backend = newKV1Backend()
	}
	m.options = map[string]any{"version": version}
	return m
}

func builtinSecretMounts() map[string]*mount {
	return map[string]*mount{
		"sys/": newMount("system", "system endpoints used for control, policy and debugging",
			unsupportedBackend{}),
		"identity/": newMount("identity", "identity store", unsupportedBackend{}),
		"cubbyhole/": newMount("cubbyhole", "per-token private secret storage",
			unsupportedBackend{}),
		"secret/": newKVMount("2", "key/value secret storage"),
	}
}

// info describes the mount as sys/mounts and sys/auth do.
func (m *mount) info() map[string]any {
	config := map[string]any{"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": false}
	return map[string]any{
		"accessor": m.accessor, "config": config, "description": m.description,
		"local":                   m.kind == "cubbyhole",
		"external_entropy_access": false, "options": m.options, "plugin_version": "",
		"seal_wrap":              false,
		"running_plugin_version": "v" + Version + "+builtin.vault", "running_sha256": "",
		"type": m.kind, "uuid": m.uuid,
	}
}

// unsupportedBackend is an engine that devvault names and does not have.
type unsupportedBackend struct{}

func (unsupportedBackend) handle(*request) (*answer, error) { return nil, errUnsupportedPath }
func (unsupportedBackend) exists(string) bool               { return true }

// findMount returns the mount that serves a path, and its own path. A mount is also reached by its
// path without the last slash.
func (v *Vault) findMount(path string) (at string, m *mount) {
	if below, ok := strings.CutPrefix(path, "auth/"); ok {
		at, m = longestMount(v.auths, below)
		return "auth/" + at, m
	}
	return longestMount(v.secrets, path)
}

func longestMount(mounts map[string]*mount, path string) (string, *mount) {
	for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '/') {
		at := strings.TrimSuffix(path[:end], "/") + "/"
		if m := mounts[at]; m != nil {
			return at, m
		}
	}
	return "", nil
}

// conflict returns the path of a mount that a new mount at the path would hide or be hidden by; ""
// for none.
func conflict(mounts map[string]*mount, path string) string {
	for _, at := range slices.Sorted(maps.Keys(mounts)) {
		if strings.HasPrefix(at, path) || strings.HasPrefix(path, at) {
			return at
		}
	}
	return ""
}

// handle finds out who asks, whether they may, and who answers.
func (v *Vault) handle(r *request) (*answer, error) {
	at, m := v.findMount(r.path)
	if m != nil {
		r.rest = strings.TrimPrefix(strings.TrimPrefix(r.path, strings.TrimSuffix(at, "/")), "/")
		if r.op == opUpdate && !m.backend.exists(r.rest) {
			r.op = opCreate
		}
	}
	if a, err := v.handleOpen(r, m); a != nil || err != nil {
		return a, err
	}
	if err := v.authenticate(r); err != nil {
		return nil, err
	}
	defer v.tokens.spend(r.token)
	if err := v.authorize(r); err != nil {
		return nil, err
	}
	if m == nil {
		return nil, noRoute(r.path)
	}
	a, err := m.backend.handle(r)
	if a != nil && a.mount == "" && a.status == 0 {
		a.mount = m.kind
	}
	return a, err
}
