package vault

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const doingMounts = "list the mounts"

// Mount is a secrets engine.
type Mount struct {
	// Path ends in a slash.
	Path, Type string
	// KVVersion is 1 or 2 for type kv, else 0.
	KVVersion uint32
}

// MountOf asks which engine serves the path. Vault tells every token that may read there. Errors:
// ErrNotAllowed, an outage, or ctx's own.
func (c *Client) MountOf(ctx context.Context, token redact.String, path string) (Mount, error) {
	ans, err := c.do(ctx, request{doing: "ask for the mount", kind: CallMount,
		method: http.MethodGet,
		path:   "sys/internal/ui/mounts/" + path, template: "sys/internal/ui/mounts/{path}",
		token: token})
	if err != nil {
		return Mount{}, err
	}
	found := ans.body.Data
	if ans.status != http.StatusOK || found == nil || found.Path == "" {
		return Mount{}, &CallError{Sentinel: ErrNotAllowed, Doing: "ask for the mount",
			Status: ans.status}
	}
	return Mount{Path: found.Path, Type: found.Type,
		KVVersion: kvVersion(found.Type, found.Options)}, nil
}

// Mounts lists the secrets engines that the token may list, by path, without Vault's own. Errors:
// ErrNotAllowed, an outage, or ctx's own.
func (c *Client) Mounts(ctx context.Context, token redact.String) ([]Mount, error) {
	ans, err := c.do(ctx, request{doing: doingMounts, kind: CallMount, method: http.MethodGet,
		path: "sys/mounts", token: token})
	if err != nil {
		return nil, err
	}
	var listed struct {
		Data map[string]api.MountOutput `json:"data"`
	}
	if ans.status != http.StatusOK || json.Unmarshal(ans.text, &listed) != nil {
		return nil, &CallError{Sentinel: ErrNotAllowed, Doing: doingMounts, Status: ans.status,
			Remedy: `to see them here, add to the policy: ` +
				`path "sys/mounts" { capabilities = ["read"] }`}
	}
	var mounts []Mount
	for path, m := range listed.Data {
		switch strings.TrimPrefix(m.Type, "ns_") {
		case "system", "identity", "cubbyhole", "token":
			continue
		}
		mounts = append(mounts, Mount{Path: path, Type: m.Type,
			KVVersion: kvVersion(m.Type, m.Options)})
	}
	slices.SortFunc(mounts, func(a, b Mount) int { return cmp.Compare(a.Path, b.Path) })
	return mounts, nil
}

// kvVersion returns 1 or 2 for the KV engine, and 0 for others.
func kvVersion(kind string, options map[string]string) uint32 {
	switch {
	case kind != "kv" && kind != "generic":
		return 0
	case options["version"] == "2":
		return 2
	}
	return 1
}
