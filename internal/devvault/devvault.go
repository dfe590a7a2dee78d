// Package devvault is a development Vault: an http.Handler that keeps everything in memory and
// speaks the part of HashiCorp Vault's HTTP API that the sidecar, its tests and a developer with
// curl or the vault CLI need.
//
// It is for development and tests, never for production: nothing is encrypted, nothing is audited,
// and everything is lost when the process ends.
//
// What it serves: KV versions 1 and 2, AppRole logins at any mount, service and batch tokens that
// really expire, HCL policies, response wrapping, and the sys paths that go with them. It answers
// as Vault 1.21 Community Edition does, status, body and error texts alike; the contract suite in
// this package holds both to the same expectations. As in the Community Edition, the
// X-Vault-Namespace header is ignored.
//
// Where it deliberately differs from Vault:
//
//   - A path, parameter or secrets engine outside the subset is refused as an unsupported one. A
//     mount of type "transit" can be made, and answers nothing: it is there to be a mount that is
//     not KV.
//   - A policy may only use capabilities; allowed_parameters and the like are refused.
//   - Request bodies are JSON only, never forms. Of the limits on JSON only the one on a string's
//     length is kept.
//   - Bound CIDRs of an AppRole are stored and shown, not enforced.
//   - Tokens are shorter, and a batch token is remembered rather than encrypted into itself.
//   - An expired secret ID is refused at once; Vault lets one with unlimited uses in until it
//     tidies up, which may take a minute.
//   - The KV metadata does not record who wrote a version, and delete_version_after is not
//     supported.
package devvault

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"sync"
)

// Version is the version of Vault that devvault claims to be.
const Version = "1.21.2"

// Options configure a Vault. The zero value is ready to use.
type Options struct {
	// RootToken is the ID of the root token; "" makes a random one.
	RootToken string
	// OnRequest is told about each request that Vault itself would audit: after it was carried out
	// and before its answer is sent, so that blocking here is a Vault that is slow to answer. It is
	// called by many goroutines at once, with no lock held. May be nil.
	OnRequest func(Request)
}

// Request is what OnRequest gets to know about a request.
type Request struct {
	// Operation is Vault's name for it: create, read, update, patch, delete or list.
	Operation string
	// Path is the path after /v1/, decoded, for example "secret/data/app".
	Path string
	// Root is true when the request came with a token that has the root policy.
	Root bool
}

// Vault is an in-memory Vault, initialised and unsealed, with KV version 2 mounted at secret/. New
// makes it. It is safe for concurrent use and starts no goroutine.
type Vault struct {
	mux       *http.ServeMux
	rootToken string
	onRequest func(Request)

	// guards everything below; a request holds it from its authentication to its answer
	mu       sync.Mutex
	sealed   bool
	cluster  string
	tokens   *tokenStore
	policies map[string]*policy
	secrets  map[string]*mount // secrets engines by path, which ends in "/"
	auths    map[string]*mount // auth methods by path below auth/, which ends in "/"
}

// New makes a Vault.
func New(opts Options) *Vault {
	v := &Vault{
		mux:       http.NewServeMux(),
		rootToken: opts.RootToken,
		onRequest: opts.OnRequest,
		cluster:   newUUID(),
		tokens:    newTokenStore(),
		policies:  builtinPolicies(),
		secrets:   builtinSecretMounts(),
		auths:     make(map[string]*mount),
	}
	if v.rootToken == "" {
		v.rootToken = "hvs." + rand.Text()
	}
	v.tokens.add(rootToken(v.rootToken))
	v.auths["token/"] = newMount("token", "token based credentials", &tokenBackend{vault: v})
	v.secrets["sys/"].backend = &sysBackend{vault: v}
	v.mux.HandleFunc("/v1/", v.serve)
	return v
}

// RootToken returns the ID of the root token.
func (v *Vault) RootToken() string { return v.rootToken }

// SetSealed seals or unseals the Vault. While sealed it answers 503 to everything but its state.
// Tokens and secrets survive.
func (v *Vault) SetSealed(sealed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sealed = sealed
}

// SetupAppRole makes a role that logs in at auth/approle, which it enables when it is not yet
// there. Tokens of the role live an hour and have the policy given in HCL. It returns the
// credentials to log in with. Called again, it replaces the policy and adds a secret ID.
func (v *Vault) SetupAppRole(name, policyHCL string) (roleID, secretID string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	rules, err := parsePolicy(policyHCL)
	if err != nil {
		return "", "", fmt.Errorf("set up AppRole %s: %w", name, err)
	}
	v.policies[name] = &policy{text: policyHCL, rules: rules}
	if v.auths["approle/"] == nil {
		v.auths["approle/"] = newAppRoleMount(v, "approle/", "")
	}
	backend, ok := v.auths["approle/"].backend.(*appRoleBackend)
	if !ok {
		return "", "", fmt.Errorf("set up AppRole %s: auth/approle is not of type approle", name)
	}
	role, err := backend.writeRole(name, fields{"token_policies": name, "token_ttl": "1h"})
	if err != nil {
		return "", "", fmt.Errorf("set up AppRole %s: %w", name, err)
	}
	id, _ := role.addSecretID(newUUID(), role.secretIDTTL, role.secretIDNumUses)
	return role.roleID, id, nil
}

// WriteSecret writes a new version of a secret in the KV version 2 engine at secret/; path is the
// secret's name, for example "app/db". The data must be what encoding/json can encode.
func (v *Vault) WriteSecret(path string, data map[string]any) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := v.secrets["secret/"]
	if m == nil {
		return fmt.Errorf("write secret %s: nothing is mounted at secret/", path)
	}
	kv, ok := m.backend.(*kv2Backend)
	if !ok {
		return fmt.Errorf("write secret %s: secret/ is not KV version 2", path)
	}
	if _, err := kv.write(path, fields{"data": data}); err != nil {
		return fmt.Errorf("write secret %s: %w", path, err)
	}
	return nil
}

// newUUID returns a random UUID, the form of Vault's role IDs, secret IDs and request IDs.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
