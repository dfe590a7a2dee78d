package devvault_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"testing"

	"go.uber.org/goleak"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// The contract suite holds the development Vault and a real one to the same expectations, so that
// the first cannot drift from the second. Its tests are spread over the contract_*_test.go files;
// this one has what they share. Bodies are compared whole, except for what is different every time
// (see volatile).

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call is one request and the answer expected to it.
type call struct {
	name   string // what the case shows; "" for a step that only leads to the next
	token  string // "" sends none
	method string
	path   string // after /v1/, percent-encoded
	body   any
	header http.Header
	status int
	want   map[string]any // the body; nil expects none
}

// expect sends the calls one after the other.
func expect(t *testing.T, v *vaulttest.Vault, calls ...call) {
	t.Helper()
	for _, c := range calls {
		answer := v.Call(t, c.token, c.method, c.path, c.body, c.header)
		if answer.Status != c.status {
			t.Errorf("%s: %s %s: status %d, want %d: %s", c.name, c.method, c.path, answer.Status,
				c.status, answer.Text)
			continue
		}
		if got, want := canonical(t, answer.Body),
			canonical(t, c.want); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s %s:\n got %s\nwant %s", c.name, c.method, c.path, encode(t, got),
				encode(t, want))
		}
	}
}

// volatile fields have another value every time: whether they hold something is all that is
// compared.
var volatile = map[string]bool{
	"request_id": true, "client_token": true, "accessor": true, "entity_id": true, "token": true, "id": true,
	"created_time": true, "creation_time": true, "deletion_time": true, "expire_time": true, "issue_time": true,
	"last_renewal": true, "last_renewal_time": true, "updated_time": true,
	"secret_id": true, "secret_id_accessor": true, "wrapped_accessor": true,
}

// some stands for the value of a volatile field that is not empty.
const some = "(some)"

// canonical brings a body into the one form in which bodies are compared.
func canonical(t *testing.T, body map[string]any) any {
	t.Helper()
	if body == nil {
		return nil
	}
	var plain any
	decoder := json.NewDecoder(bytes.NewReader(encode(t, body)))
	decoder.UseNumber()
	if err := decoder.Decode(&plain); err != nil {
		t.Fatal(err)
	}
	return blank(plain)
}

func blank(value any) any {
	switch value := value.(type) {
	case []any:
		for i := range value {
			value[i] = blank(value[i])
		}
	case map[string]any:
		for name, field := range value {
			if volatile[name] && field != "" && field != nil {
				value[name] = some
				continue
			}
			value[name] = blank(field)
		}
	}
	return value
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// object is a JSON object.
type object = map[string]any

// failure is the body of an answer that says no.
func failure(texts ...string) object {
	if texts == nil {
		texts = []string{}
	}
	return object{"errors": texts}
}

// Vault's three ways to say 403, and its way to say that a path leads nowhere.
var (
	noToken      = failure("permission denied")
	policyDenied = failure("1 error occurred:\n\t* permission denied\n\n")
	invalidToken = failure("2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
	notFound     = failure()
)

// envelope is the body of an answer that says yes, with the given fields in place of the usual
// ones.
func envelope(mount string, changes object) object {
	body := object{
		"request_id": some, "lease_id": "", "renewable": false, "lease_duration": 0, "data": nil,
		"wrap_info": nil, "warnings": nil, "auth": nil, "mount_type": mount,
	}
	for name, value := range changes {
		body[name] = value
	}
	return body
}

// auth is the auth part of a body, of an AppRole's service token with the default policy unless
// changed.
func auth(role string, changes object) object {
	fields := object{
		"client_token": some, "accessor": some, "policies": []string{"default"}, "token_policies": []string{"default"},
		"metadata": object{"role_name": role}, "lease_duration": 2764800, "renewable": true, "entity_id": some,
		"token_type": "service", "orphan": true, "mfa_requirement": nil, "num_uses": 0,
	}
	for name, value := range changes {
		fields[name] = value
	}
	return fields
}

// login is a call that logs in.
func login(name, roleID, secretID string, status int, want object) call {
	body := object{}
	if roleID != "" {
		body["role_id"] = roleID
	}
	if secretID != "" {
		body["secret_id"] = secretID
	}
	return call{name: name, method: http.MethodPost, path: "auth/approle/login", body: body,
		status: status, want: want}
}

// newToken logs in and returns the token.
func newToken(t *testing.T, v *vaulttest.Vault, roleID, secretID string) string {
	t.Helper()
	answer := v.Call(t, "", http.MethodPost, "auth/approle/login",
		object{"role_id": roleID, "secret_id": secretID}, nil)
	auth, _ := answer.Body["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	if token == "" {
		t.Fatalf("login: status %d: %s", answer.Status, answer.Text)
	}
	return token
}

// roleToken makes a role with the parameters and the policy, and logs in.
func roleToken(t *testing.T, v *vaulttest.Vault, params object,
	policyHCL string) (role, token string) {
	t.Helper()
	role = vaulttest.Unique("role")
	roleID, secretID := v.AppRole(t, role, params, policyHCL)
	return role, newToken(t, v, roleID, secretID)
}
