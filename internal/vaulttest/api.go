package vaulttest

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// client opens a connection per request: a kept one would be a goroutine that outlives the test.
var client = &http.Client{
	Timeout:       30 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Answer is what Vault answered.
type Answer struct {
	Status int
	Header http.Header
	// Text is the body.
	Text string
	// Body is the body as JSON, numbers as json.Number; nil when it is no JSON object.
	Body map[string]any
}

// Call sends one request, with the token when it is not "" and the extra headers when there are
// any, and fails the test when no answer comes. The path is what follows /v1/, percent-encoded. A
// body is sent as JSON, a string as it is; nil sends none.
func (v *Vault) Call(t testing.TB, token, method, path string, body any,
	header http.Header) Answer {
	t.Helper()
	answer, err := callBy(clientFor(v.CA), v.Address, token, method, path, body, header)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

// CallAs is Call without a token, by a client that shows the certificate; the zero one is none.
func (v *Vault) CallAs(t testing.TB, shown ClientCertificate, method, path string,
	body any) Answer {
	t.Helper()
	by := clientFor(v.CA, shown.tls(t)...)
	answer, err := callBy(by, v.Address, "", method, path, body, nil)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

// clientFor is client, which trusts the CA alone and shows the certificates when there are any.
func clientFor(ca string, shown ...tls.Certificate) *http.Client {
	if ca == "" {
		return client
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca))
	trusting := *client
	trusting.Transport = &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: shown, MinVersion: tls.VersionTLS12}}
	return &trusting
}

// Try is Call with the root token for a Vault that may be out of order: an error means that no
// answer came.
func (v *Vault) Try(method, path string, body any) (Answer, error) {
	return callBy(clientFor(v.CA), v.Address, v.RootToken, method, path, body, nil)
}

// Do sends one request with the root token and returns the status and the body; see Call.
func (v *Vault) Do(t testing.TB, method, path string, body any) (status int,
	answer map[string]any) {
	t.Helper()
	a := v.Call(t, v.RootToken, method, path, body, nil)
	return a.Status, a.Body
}

// must is Do that fails the test unless Vault agrees.
func (v *Vault) must(t testing.TB, method, path string, body any) map[string]any {
	t.Helper()
	status, answer := v.Do(t, method, path, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: status %d: %v", method, path, status, answer)
	}
	return answer
}

func call(address, token, method, path string, body any, header http.Header) (Answer, error) {
	return callBy(client, address, token, method, path, body, header)
}

func callBy(client *http.Client, address, token, method, path string, body any,
	header http.Header) (Answer, error) {
	payload, err := encodeBody(body)
	if err != nil {
		return Answer{}, err
	}
	request, err := http.NewRequest(method, address+"/v1/"+path, payload)
	if err != nil {
		return Answer{}, err
	}
	for name, values := range header {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("X-Vault-Token", token)
	}
	response, err := client.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, err
	}
	return Answer{response.StatusCode, response.Header, string(text), decodeBody(text)}, nil
}

func encodeBody(body any) (io.Reader, error) {
	switch body := body.(type) {
	case nil:
		return http.NoBody, nil
	case string:
		return strings.NewReader(body), nil
	}
	text, err := json.Marshal(body)
	return bytes.NewReader(text), err
}

func decodeBody(text []byte) map[string]any {
	var body map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if decoder.Decode(&body) != nil {
		return nil
	}
	return body
}

// Unique returns a name made of prefix that nothing else in the Vault has.
func Unique(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:12]) }

// WriteSecret writes a new version of a KV version 2 secret at its API path, for example
// "secret/data/app", which is percent-encoded where it needs to be.
func (v *Vault) WriteSecret(t testing.TB, path string, data map[string]any) {
	t.Helper()
	v.must(t, http.MethodPost, EscapePath(path), map[string]any{"data": data})
}

// EscapePath percent-encodes every segment of a path.
func EscapePath(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c == '/' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// Mount mounts a secrets engine, for example Mount(t, "team/kv", "kv", "2"); version "" sends no
// version.
func (v *Vault) Mount(t testing.TB, path, kind, version string) {
	t.Helper()
	body := map[string]any{"type": kind}
	if version != "" {
		body["options"] = map[string]any{"version": version}
	}
	v.must(t, http.MethodPost, "sys/mounts/"+EscapePath(path), body)
}

// Policy writes an ACL policy in HCL.
func (v *Vault) Policy(t testing.TB, name, hcl string) {
	t.Helper()
	v.must(t, http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": hcl})
}

// AppRole makes or changes a role at auth/approle, which it enables when it is not there, and
// returns its credentials. The parameters are those of Vault's API, for example "token_ttl"; a
// policy called like the role is written and given to it, unless policyHCL is "". The secret ID is
// "" for a role with bind_secret_id false.
func (v *Vault) AppRole(t testing.TB, role string, params map[string]any,
	policyHCL string) (roleID, secretID string) {
	t.Helper()
	return v.AppRoleAt(t, "approle", role, params, policyHCL)
}

// AppRoleAt is AppRole at another auth mount, for example "team/approle".
func (v *Vault) AppRoleAt(t testing.TB, mount, role string, params map[string]any,
	policyHCL string) (roleID, secretID string) {
	t.Helper()
	v.enableAppRole(t, mount)
	body := make(map[string]any)
	for name, value := range params {
		body[name] = value
	}
	if policyHCL != "" {
		v.Policy(t, role, policyHCL)
		if body["token_policies"] == nil {
			body["token_policies"] = role
		}
	}
	at := "auth/" + mount + "/role/" + role
	v.must(t, http.MethodPost, at, body)
	roleID = dataField(v.must(t, http.MethodGet, at+"/role-id", nil), "role_id")
	if params["bind_secret_id"] == false {
		return roleID, ""
	}
	return roleID, v.SecretID(t, mount, role)
}

// enableAppRole tolerates that another test was faster.
func (v *Vault) enableAppRole(t testing.TB, mount string) {
	t.Helper()
	status, answer := v.Do(t, http.MethodPost, "sys/auth/"+mount, map[string]any{"type": "approle"})
	if status != http.StatusNoContent && !strings.Contains(fmt.Sprint(answer), "already in use") {
		t.Fatalf("enable approle at %s: status %d: %v", mount, status, answer)
	}
}

// SecretID makes another secret ID of a role.
func (v *Vault) SecretID(t testing.TB, mount, role string) string {
	t.Helper()
	return dataField(v.must(t, http.MethodPost, "auth/"+mount+"/role/"+role+"/secret-id", nil),
		"secret_id")
}

// WrappedSecretID makes another secret ID of a role and returns the wrapping token that it is
// inside of.
func (v *Vault) WrappedSecretID(t testing.TB, mount, role string, ttl time.Duration) string {
	t.Helper()
	header := http.Header{"X-Vault-Wrap-Ttl": {ttl.String()}}
	answer := v.Call(t, v.RootToken, http.MethodPost, "auth/"+mount+"/role/"+role+"/secret-id", nil,
		header)
	info, _ := answer.Body["wrap_info"].(map[string]any)
	wrapping, _ := info["token"].(string)
	if wrapping == "" {
		t.Fatalf("wrap a secret ID of %s: status %d: no wrapping token", role, answer.Status)
	}
	return wrapping
}

// Token makes a service token with the policies; ttl 0 is Vault's default.
func (v *Vault) Token(t testing.TB, ttl time.Duration, policies ...string) string {
	t.Helper()
	body := map[string]any{"policies": policies}
	if ttl > 0 {
		body["ttl"] = ttl.String()
	}
	auth, _ := v.must(t, http.MethodPost, "auth/token/create", body)["auth"].(map[string]any)
	id, _ := auth["client_token"].(string)
	return id
}

// RevokeToken revokes a token.
func (v *Vault) RevokeToken(t testing.TB, id string) {
	t.Helper()
	v.must(t, http.MethodPost, "auth/token/revoke", map[string]any{"token": id})
}

// TokenInfo is what a Vault knows about a live token.
type TokenInfo struct {
	Accessor, Role string
}

// RoleTokens returns the live service tokens that logins of an AppRole made.
func (v *Vault) RoleTokens(t testing.TB, role string) []TokenInfo {
	t.Helper()
	status, answer := v.Do(t, "LIST", "auth/token/accessors", nil)
	if status != http.StatusOK {
		t.Fatalf("list tokens: status %d: %v", status, answer)
	}
	data, _ := answer["data"].(map[string]any)
	keys, _ := data["keys"].([]any)
	var found []TokenInfo
	for _, key := range keys {
		accessor, _ := key.(string)
		_, info := v.Do(t, http.MethodPost, "auth/token/lookup-accessor",
			map[string]any{"accessor": accessor})
		data, _ := info["data"].(map[string]any)
		meta, _ := data["meta"].(map[string]any)
		if meta["role_name"] == role {
			found = append(found, TokenInfo{Accessor: accessor, Role: role})
		}
	}
	return found
}

// RevokeRoleTokens revokes every live service token of an AppRole, as an operator would, and
// returns how many.
func (v *Vault) RevokeRoleTokens(t testing.TB, role string) int {
	t.Helper()
	tokens := v.RoleTokens(t, role)
	for _, token := range tokens {
		v.must(t, http.MethodPost, "auth/token/revoke-accessor",
			map[string]any{"accessor": token.Accessor})
	}
	return len(tokens)
}

// Seal seals the Vault. The test fails on one that it shares with others.
func (v *Vault) Seal(t testing.TB) {
	t.Helper()
	if v.shared {
		t.Fatal("other tests use this Vault: take EachPrivate or RealPrivate to seal one")
	}
	if v.dev != nil {
		v.dev.SetSealed(true)
		return
	}
	v.must(t, http.MethodPut, "sys/seal", nil)
}

// Unseal unseals the Vault. Secrets, roles and tokens are still there.
func (v *Vault) Unseal(t testing.TB) {
	t.Helper()
	if v.dev != nil {
		v.dev.SetSealed(false)
		return
	}
	v.must(t, http.MethodPut, "sys/unseal", map[string]any{"key": v.process.unsealKey})
	if err := v.process.waitUntil(v.process.answers); err != nil {
		t.Fatalf("unseal: %v", err)
	}
}

func dataField(answer map[string]any, name string) string {
	data, _ := answer["data"].(map[string]any)
	text, _ := data[name].(string)
	return text
}
