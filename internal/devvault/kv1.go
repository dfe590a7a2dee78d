package devvault

import (
	"maps"
	"slices"
	"strings"
)

// kv1Backend is a KV version 1 engine: secrets as they were written, the last version only.
type kv1Backend struct {
	secrets map[string]map[string]any
}

func newKV1Backend() *kv1Backend { return &kv1Backend{secrets: make(map[string]map[string]any)} }

func (b *kv1Backend) exists(rest string) bool { return b.secrets[rest] != nil }

func (b *kv1Backend) handle(r *request) (*answer, error) {
	switch r.op {
	case opRead:
		if b.secrets[r.rest] == nil {
			return nil, errNotFound
		}
		return &answer{data: b.secrets[r.rest], lease: maxLease}, nil
	case opCreate, opUpdate:
		if len(r.body) == 0 {
			return nil, badRequest("missing data fields")
		}
		b.secrets[r.rest] = r.body
		return nil, nil
	case opDelete:
		delete(b.secrets, r.rest)
		return nil, nil
	case opList:
		return listKeys(maps.Keys(b.secrets), r.rest)
	}
	return nil, errUnsupportedOperation
}

// listKeys lists what is directly below a folder: names, and folders ending in "/".
func listKeys(paths func(yield func(string) bool), folder string) (*answer, error) {
	var keys []string
	for path := range paths {
		below, ok := strings.CutPrefix(path, folder)
		if !ok || below == "" {
			continue
		}
		name, _, isFolder := strings.Cut(below, "/")
		if isFolder {
			name += "/"
		}
		keys = append(keys, name)
	}
	if keys == nil {
		return nil, errNotFound
	}
	slices.Sort(keys)
	return &answer{data: map[string]any{"keys": slices.Compact(keys)}}, nil
}
