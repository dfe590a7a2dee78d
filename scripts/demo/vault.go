package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// vault is a Vault that the demo holds the root token of.
type vault struct {
	address, token string
}

// do sends one request and returns Vault's answer. An answer that is no success is an error.
func (v vault) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, v.address+"/v1/"+path,
		bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Token", v.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		return nil, fmt.Errorf("vault answered %s to %s %s: %s", response.Status, method, path,
			answer)
	}
	return answer, nil
}

// field asks for one string out of the answer's data.
func (v vault) field(ctx context.Context, method, path, name string) (string, error) {
	text, err := v.do(ctx, method, path, nil)
	if err != nil {
		return "", err
	}
	var answer struct{ Data map[string]any }
	if err := json.Unmarshal(text, &answer); err != nil {
		return "", err
	}
	value, ok := answer.Data[name].(string)
	if !ok {
		return "", fmt.Errorf("vault's answer to %s %s has no %s", method, path, name)
	}
	return value, nil
}

// policy lets the sidecar read secrets, and see the mounts in `connections test`.
const policy = `
path "secret/data/*" { capabilities = ["read"] }
path "sys/mounts" { capabilities = ["read"] }`

// setUp makes an AppRole that may read the KV mount, with the demo's secret in it, and returns its
// credentials.
func (v vault) setUp(ctx context.Context) (roleID, secretID string, err error) {
	const role = "auth/approle/role/secret-sidecar"
	steps := []struct {
		path string
		body any
	}{
		{"sys/auth/approle", map[string]any{"type": "approle"}},
		{"sys/policies/acl/secret-sidecar", map[string]any{"policy": policy}},
		{role, map[string]any{"token_policies": "secret-sidecar", "token_ttl": "1h"}},
		{secretAPI, map[string]any{"data": map[string]any{secretKey: firstValue}}},
	}
	for _, step := range steps {
		if _, err := v.do(ctx, http.MethodPost, step.path, step.body); err != nil {
			return "", "", err
		}
	}
	if roleID, err = v.field(ctx, http.MethodGet, role+"/role-id", "role_id"); err != nil {
		return "", "", err
	}
	secretID, err = v.field(ctx, http.MethodPost, role+"/secret-id", "secret_id")
	return roleID, secretID, err
}

// serverVersion asks for the version; Vault says it to anybody.
func (v vault) serverVersion(ctx context.Context) (string, error) {
	text, err := v.do(ctx, http.MethodGet, "sys/health", nil)
	if err != nil {
		return "", err
	}
	var health struct{ Version string }
	err = json.Unmarshal(text, &health)
	return health.Version, err
}
