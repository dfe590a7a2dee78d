package devvault_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

const getOwnToken = "auth/token/lookup-self"

var (
	badCredentials = failure("invalid role or secret ID")
	noAlias        = failure("failed to determine alias name from login request")
)

func TestContractLogin(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		role := vaulttest.Unique("login")
		roleID, secretID := v.AppRole(t, role, object{"token_ttl": "1h"},
			`path "x" { capabilities = ["read"] }`)
		policies := []string{"default", role}
		good := envelope("",
			object{"auth": auth(role,
				object{"lease_duration": 3600, "policies": policies, "token_policies": policies})})
		namespaced := login("a namespace header is ignored", roleID, secretID, 200, good)
		namespaced.header = http.Header{"X-Vault-Namespace": {"team"}}
		tokened := login("a token that is no good does not matter", roleID, secretID, 200, good)
		tokened.token = "garbage"
		elsewhere := login("no auth method at the mount", roleID, secretID, 403, noToken)
		elsewhere.path = "auth/" + vaulttest.Unique("none") + "/login"
		expect(t, v,
			login("good credentials", roleID, secretID, 200, good),
			namespaced, tokened, elsewhere,
			login("unknown role ID", "unknown", secretID, 400, badCredentials),
			login("wrong secret ID", roleID, "wrong", 400, badCredentials),
			login("no secret ID", roleID, "", 400, failure("missing secret_id")),
			login("no role ID", "", secretID, 500, noAlias),
			login("nothing at all", "", "", 500, noAlias),
		)
	})
}

func TestContractLoginGrants(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		params object
		want   object
	}{
		{"a role that says nothing", nil, nil},
		{"a batch token", object{"token_type": "batch", "token_ttl": "10m"},
			object{"token_type": "batch", "accessor": "", "renewable": false,
				"lease_duration": 600}},
		{"a periodic token", object{"token_period": "20m"}, object{"lease_duration": 1200}},
		{"a token with a number of uses", object{"token_num_uses": 3}, object{"num_uses": 3}},
		{"no default policy", object{"token_no_default_policy": true, "token_policies": "a"},
			object{"policies": []string{"a"}, "token_policies": []string{"a"}}},
		{"policies are sorted and without doubles", object{"token_policies": "b,a,b"},
			object{"policies": []string{"a", "b", "default"},
				"token_policies": []string{"a", "b", "default"}}},
	}
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		for _, c := range cases {
			role := vaulttest.Unique("grant")
			roleID, secretID := v.AppRole(t, role, c.params, "")
			expect(t, v, login(c.name, roleID, secretID, 200,
				envelope("", object{"auth": auth(role, c.want)})))
		}
		role := vaulttest.Unique("grant")
		params := object{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.1/32"}
		roleID, _ := v.AppRole(t, role, params, "")
		expect(t, v, login("a role without secret IDs", roleID, "", 200,
			envelope("", object{"auth": auth(role, nil)})))
	})
}

func TestContractRolesThatVaultRefuses(t *testing.T) {
	t.Parallel()
	const batch = "'token_type' cannot be 'batch' or 'default_batch' when set to generate "
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		v.AppRole(t, vaulttest.Unique("any"), nil, "")
		refused := func(name string, body object, status int, text string) call {
			return call{name, v.RootToken, http.MethodPost,
				"auth/approle/role/" + vaulttest.Unique("bad"), body, nil, status, failure(text)}
		}
		expect(t, v,
			refused("ttl above the maximum", object{"token_ttl": "2h", "token_max_ttl": "1h"}, 400,
				"'token_ttl' cannot be greater than 'token_max_ttl'"),
			refused("batch with uses", object{"token_type": "batch", "token_num_uses": 3}, 400,
				batch+"tokens with limited use count"),
			refused("periodic batch", object{"token_type": "batch", "token_period": "1h"}, 400,
				batch+"periodic tokens"),
			refused("no duration", object{"token_ttl": "x"}, 400,
				`error converting input for field "token_ttl": time: invalid duration "x"`),
			refused("nothing to bind", object{"bind_secret_id": false}, 500,
				"1 error occurred:\n\t* at least one constraint should be enabled on the role\n\n"),
			call{"role that is not there", v.RootToken, http.MethodGet,
				"auth/approle/role/none/role-id", nil, nil, 404, notFound},
			call{"secret ID of a role that is not there", v.RootToken, http.MethodPost,
				"auth/approle/role/none/secret-id", nil, nil,
				404, failure(`role "none" does not exist`)},
		)
	})
}

func TestContractSecretIDs(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		role := vaulttest.Unique("sid")
		roleID, once := v.AppRole(t, role, object{"secret_id_num_uses": 1}, "")
		good := envelope("", object{"auth": auth(role, nil)})
		expect(t, v,
			login("first use of a secret ID good for one", roleID, once, 200, good),
			login("second use", roleID, once, 400, badCredentials),
			call{"a new one", v.RootToken, http.MethodPost,
				"auth/approle/role/" + role + "/secret-id", object{"ttl": "90s"}, nil,
				200, envelope("approle",
					object{"data": object{"secret_id": some, "secret_id_accessor": some,
						"secret_id_num_uses": 1, "secret_id_ttl": 90}})},
			call{"one with more uses than the role allows", v.RootToken, http.MethodPost,
				"auth/approle/role/" + role + "/secret-id",
				object{"num_uses": 2}, nil, 400,
				failure("num_uses cannot be higher than the role's secret_id_num_uses")},
			call{"one of one's own choice", v.RootToken, http.MethodPost,
				"auth/approle/role/" + role + "/custom-secret-id",
				object{"secret_id": role + "-mine"}, nil, 200,
				envelope("approle", object{"data": object{
					"secret_id": some, "secret_id_accessor": some, "secret_id_num_uses": 1, "secret_id_ttl": 0}})},
			login("one of one's own choice", roleID, role+"-mine", 200, good),
			call{"a role ID of one's own choice", v.RootToken, http.MethodPost,
				"auth/approle/role/" + role + "/role-id",
				object{"role_id": role + "-id"}, nil, 204, nil},
			login("the old role ID", roleID, v.SecretID(t, "approle", role), 400, badCredentials),
			login("the new role ID", role+"-id", v.SecretID(t, "approle", role), 200, good),
		)
		destroyed := v.SecretID(t, "approle", role)
		expect(t, v,
			call{"destroy", v.RootToken, http.MethodPost,
				"auth/approle/role/" + role + "/secret-id/destroy", object{"secret_id": destroyed},
				nil, 204, nil},
			login("a destroyed secret ID", role+"-id", destroyed, 400, badCredentials),
		)
	})
}

func TestContractLockout(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		role := vaulttest.Unique("lock")
		roleID, secretID := v.AppRole(t, role, nil, "")
		good := envelope("", object{"auth": auth(role, nil)})
		times := func(n int, c call) {
			for range n {
				expect(t, v, c)
			}
		}
		times(6, login("a missing secret ID does not count", roleID, "", 400,
			failure("missing secret_id")))
		times(6, login("an unknown role does not count", "unknown-"+role, "x", 400, badCredentials))
		times(4, login("the first four", roleID, "wrong", 400, badCredentials))
		expect(t, v, login("a good login starts the count anew", roleID, secretID, 200, good))
		times(5, login("five in a row", roleID, "wrong", 400, badCredentials))
		expect(t, v,
			login("the right one is locked out", roleID, secretID, 403, noToken),
			login("and so is a wrong one", roleID, "wrong", 403, noToken),
			login("and one without a secret ID", roleID, "", 403, noToken),
		)
		answer := v.Call(t, v.RootToken, http.MethodGet, "sys/auth/approle", nil, nil)
		accessor, _ := answer.Body["accessor"].(string)
		expect(t, v,
			call{"unlock", v.RootToken, http.MethodPost,
				"sys/locked-users/" + accessor + "/unlock/" + roleID, nil, nil, 204, nil},
			login("unlocked", roleID, secretID, 200, good),
		)
	})
}

// eventually polls until the condition holds, on a busy machine too.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	const limit = 2 * time.Minute
	deadline := time.After(limit)
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("not within %v", limit)
		}
	}
}
