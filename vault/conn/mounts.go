package conn

import (
	"sync"
	"time"
)

const (
	// versionedFor is how long a mount is remembered as KV version 2.
	versionedFor = time.Minute
	// maxVersioned bounds the memory; paths come from callers.
	maxVersioned = 1024
)

// mountMemory remembers mounts of KV version 2, so that a secret missing in one costs no lookup. It
// does not remember other mounts, because they may be upgraded at any time.
type mountMemory struct {
	mu    sync.Mutex
	until map[string]time.Time // by mount path with a trailing slash; guarded by mu
}

func newMountMemory() *mountMemory { return &mountMemory{until: map[string]time.Time{}} }

func (m *mountMemory) isVersioned(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for i, char := range path {
		if char == '/' && now.Before(m.until[path[:i+1]]) {
			return true
		}
	}
	return false
}

func (m *mountMemory) remember(mount string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.until) >= maxVersioned {
		clear(m.until)
	}
	m.until[mount] = time.Now().Add(versionedFor)
}
