package vault

import (
	"context"
	"net/http"
	"sync"
	"time"
)

const (
	// engineMemoryFor is how long the kind of a mount is remembered.
	engineMemoryFor = time.Minute
	// maxRememberedEngines bounds the memory; paths come from callers.
	maxRememberedEngines = 1024
)

// engineMemory tells a secret that is missing in a KV v2 mount from one in a mount of another kind: KV version
// 1 and cubbyholes answer both with the same bare 404. It asks Vault once per mount and minute, and only after
// such a 404.
type engineMemory struct {
	mu    sync.Mutex
	known map[string]engine // by mount path with a trailing slash; guarded by mu
}

type engine struct {
	notKVv2 bool
	until   time.Time
}

func newEngineMemory() *engineMemory { return &engineMemory{known: map[string]engine{}} }

// explainNotFound returns ErrNotFound, ErrNotKVv2 when Vault says that the path is another engine's, or why Vault
// could not be asked.
func (m *engineMemory) explainNotFound(ctx context.Context, a *vaultAPI, tok *token, path string) error {
	notKV, known := m.lookup(path)
	if !known {
		mount, answer, err := a.askEngine(ctx, tok, path)
		if err != nil {
			return err
		}
		if notKV = answer; mount != "" {
			m.remember(mount, answer)
		}
	}
	if notKV {
		return notKVv2()
	}
	return notFound()
}

func (m *engineMemory) lookup(path string) (notKVv2, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for i, char := range path {
		if char != '/' {
			continue
		}
		if e, ok := m.known[path[:i+1]]; ok && now.Before(e.until) {
			return e.notKVv2, true
		}
	}
	return false, false
}

func (m *engineMemory) remember(mount string, notKVv2 bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= maxRememberedEngines {
		clear(m.known)
	}
	m.known[mount] = engine{notKVv2: notKVv2, until: time.Now().Add(engineMemoryFor)}
}

// askEngine asks Vault whose path it is. Vault tells every token that may read there; when it does not tell, the
// mount is taken for KV v2, and not named. Errors: an outage, or ctx's.
func (a *vaultAPI) askEngine(ctx context.Context, tok *token, path string) (mount string, notKVv2 bool, err error) {
	ans, err := a.call(ctx, request{doing: doingRead, kind: CallMount, method: http.MethodGet,
		path: "sys/internal/ui/mounts/" + path, template: "sys/internal/ui/mounts/{path}", token: tok.id})
	var body struct {
		Data struct {
			Path    string            `json:"path"`
			Type    string            `json:"type"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	if err != nil {
		return "", false, err
	}
	if told := ans.status == http.StatusOK && decode(ans.body, &body) == nil && body.Data.Path != ""; !told {
		return "", false, nil
	}
	return body.Data.Path, kvVersion(body.Data.Type, body.Data.Options) != 2, nil
}
