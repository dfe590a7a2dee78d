package vault

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

const (
	// sharedKeys is how many keys are remembered.
	sharedKeys = 1 << 10
	// longestSharedKey bounds each of them, in bytes.
	longestSharedKey = 64
)

// keyTable lets secrets share their keys: most secrets have the same few. It is bounded, and a key
// that takes the place of another only ends that one's sharing. So secrets with many keys of their
// own cost what they hold, and nothing beyond their life. It is safe for concurrent use.
type keyTable struct {
	seed  maphash.Seed
	slots [sharedKeys]atomic.Pointer[string]
}

func newKeyTable() *keyTable { return &keyTable{seed: maphash.MakeSeed()} }

// share returns the key's text, as one that earlier secrets have if there is one.
func (t *keyTable) share(key string) string {
	if len(key) > longestSharedKey {
		return key
	}
	slot := &t.slots[maphash.String(t.seed, key)%sharedKeys]
	if known := slot.Load(); known != nil && *known == key {
		return *known
	}
	own := strings.Clone(key) // it may be a part of a larger text
	slot.Store(&own)
	return own
}

// keysOfAll are the keys that the secrets of all connections share. Who reads a secret does not
// learn from it which keys others have.
var keysOfAll = newKeyTable()
