package devvault_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

func TestContractWhoMayRead(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		name := vaulttest.Unique("access")
		v.WriteSecret(t, "secret/data/"+name, map[string]any{"k": "v"})
		v.Policy(t, name, `path "secret/data/`+name+`" { capabilities = ["read"] }
			path "sys/mounts" { capabilities = ["read"] }`)
		reader, other := v.Token(t, time.Hour, name), v.Token(t, time.Hour, "default")
		found := secret(object{"k": "v"}, version(1, nil))
		at := "secret/data/" + name
		get := func(name, token, path string, header http.Header, status int, want object) call {
			return call{name, token, http.MethodGet, path, nil, header, status, want}
		}
		expect(t, v,
			get("allowed", reader, at, nil, 200, found),
			get("as a bearer", "", at, http.Header{"Authorization": {"Bearer " + reader}}, 200,
				found),
			get("a namespace is ignored", reader, at, http.Header{"X-Vault-Namespace": {"team/a"}},
				200, found),
			get("denied", other, at, nil, 403, policyDenied),
			get("denied where nothing is", reader, at+"x", nil, 403, policyDenied),
			get("denied where no mount is", reader, vaulttest.Unique("none")+"/data/x", nil, 403,
				policyDenied),
			get("no token", "", at, nil, 403, noToken),
			get("garbage", "garbage", at, nil, 403, invalidToken),
			get("garbage that looks like a token", "hvs.CAESIJ", at, nil, 403, invalidToken),
			get("garbage that looks like a batch token", "hvb.AAAAAQ", at, nil, 403, invalidToken),
			call{"only reading", reader, http.MethodPost, at, object{"data": object{}}, nil, 403,
				policyDenied},
			get("mounts, denied", other, "sys/mounts", nil, 403, policyDenied),
			get("mounts, no token", "", "sys/mounts", nil, 403, noToken),
			get("an unknown path of sys", v.RootToken, "sys/none", nil, 404,
				failure("1 error occurred:\n\t* unsupported path\n\n")),
			get("an unknown path, no token", "", "none", nil, 403, noToken),
		)
		answer := v.Call(t, reader, http.MethodGet, "sys/mounts", nil, nil)
		data, _ := answer.Body["data"].(map[string]any)
		for _, mounts := range []map[string]any{data, answer.Body} {
			mount, _ := mounts["secret/"].(map[string]any)
			options, _ := mount["options"].(map[string]any)
			if answer.Status != http.StatusOK || mount["type"] != "kv" ||
				options["version"] != "2" {
				t.Errorf("mounts, allowed: status %d, secret/ is %v", answer.Status, mount)
			}
		}
	})
}

func TestContractPolicies(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		p := vaulttest.Unique("p")
		v.Policy(t, p, `
			# comments of every kind
			path "secret/data/`+p+`/create/*"   { capabilities = ["create"] }
			// and forms
			path "secret/data/`+p+`/update/*"   { capabilities = ["update",] }
			path "secret/data/`+p+`/+/deep"     { capabilities = ["read"] } /* a plus
			is one segment */
			path "secret/data/`+p+`/q/*"        { capabilities = ["read", "list"] }
			path "secret/data/`+p+`/q/no"       { capabilities = ["deny"] }
			path "secret/data/`+p+`/q/no/*"     { capabilities = ["deny"] }
			path "secret/data/`+p+`/q/no/but*"  { capabilities = ["read"] }
			path "secret/metadata/`+p+`/*"      { capabilities = ["list"] }`)
		v.Policy(t, p+"-deny", `path "secret/data/`+p+`/q/*" { capabilities = ["deny"] }`)
		v.Policy(t, p+"-more", `path "secret/data/`+p+`/create/*" { capabilities = ["read"] }`)
		one, denied, more := v.Token(t, time.Hour, p), v.Token(t, time.Hour, p, p+"-deny"),
			v.Token(t, time.Hour, p, p+"-more")
		get := func(name, token, path string, status int, want object) call {
			return call{name, token, http.MethodGet, "secret/data/" + p + path, nil, nil, status,
				want}
		}
		post := func(name, token, path string, status int, want object) call {
			return call{name, token, http.MethodPost, "secret/data/" + p + path,
				object{"data": object{}}, nil, status, want}
		}
		first := envelope("kv", object{"data": version(1, nil)})
		expect(t, v,
			post("create", one, "/create/a", 200, first),
			post("create is not update", one, "/create/a", 403, policyDenied),
			post("update is not create", one, "/update/a", 403, policyDenied),
			get("a plus matches one segment", one, "/x/deep", 404, notFound),
			get("not two", one, "/x/y/deep", 403, policyDenied),
			get("a prefix beats a plus", one, "/create/deep", 403, policyDenied),
			get("a glob", one, "/q/yes", 404, notFound),
			get("an exact path beats a glob", one, "/q/no", 403, policyDenied),
			get("a longer glob beats a shorter one", one, "/q/no/x", 403, policyDenied),
			get("the longest wins", one, "/q/no/but", 404, notFound),
			get("deny beats another policy", denied, "/q/yes", 403, policyDenied),
			get("policies add up", more, "/create/zzz", 404, notFound),
			post("and do not replace", more, "/create/b", 200, first),
			call{"list", one, "LIST", "secret/metadata/" + p + "/", nil, nil, 200,
				envelope("kv", object{"data": object{"keys": []string{"create/"}}})},
			call{"listing is not reading", one, http.MethodGet,
				"secret/metadata/" + p + "/create/a", nil, nil, 403, policyDenied},
			call{"own capabilities", one, http.MethodPost, "sys/capabilities-self",
				object{"paths": []string{"secret/data/" + p + "/q/x",
					"secret/data/" + p + "/q/no"}}, nil, 200,
				envelope("system", object{
					"data":                       object{"secret/data/" + p + "/q/x": []string{"list", "read"}, "secret/data/" + p + "/q/no": []string{"deny"}},
					"secret/data/" + p + "/q/x":  []string{"list", "read"},
					"secret/data/" + p + "/q/no": []string{"deny"},
				})},
		)
	})
}

func TestContractPolicyAPI(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		root := kvCalls{v.RootToken}
		name := vaulttest.Unique("policy")
		text := `path "a" { capabilities = ["read"] }`
		at := "sys/policies/acl/" + name
		expect(t, v,
			root.get("missing", at, 404, notFound),
			root.post("write", at, object{"policy": text}, 204, nil),
			root.get("read", at, 200,
				envelope("system", object{"data": object{"name": name, "policy": text}})),
			root.get("read by its old path", "sys/policy/"+name, 200, envelope("system", object{
				"data": object{"name": name, "rules": text}, "name": name, "rules": text})),
			root.post("JSON", at, object{"policy": `{"path":{"a":{"capabilities":["read"]}}}`}, 204,
				nil),
			root.post("unknown capability", at,
				object{"policy": `path "x" { capabilities = ["fly"] }`}, 400,
				failure(`failed to parse policy: path "x": invalid capability "fly"`)),
			root.post("empty", at, object{"policy": ""}, 400,
				failure("'policy' parameter not supplied or empty")),
			root.post("root", "sys/policies/acl/root", object{"policy": text}, 400,
				failure(`cannot update "root" policy`)),
			root.delete("delete", at, 204),
			root.get("deleted", at, 404, notFound),
		)
		if status, _ := v.Do(t, http.MethodPut, at,
			object{"policy": "path x"}); status != http.StatusBadRequest {
			t.Errorf("a policy that is no HCL: status %d, want 400", status)
		}
	})
}

func TestContractMounts(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		root := kvCalls{v.RootToken}
		kv, approle := vaulttest.Unique("m"), vaulttest.Unique("a")+"/deep"
		taken := failure("path is already in use at " + kv + "/")
		expect(t, v,
			root.post("mount", "sys/mounts/"+kv, object{"type": "kv-v2"}, 204, nil),
			root.post("mount again", "sys/mounts/"+kv, object{"type": "kv"}, 400, taken),
			root.post("mount below", "sys/mounts/"+kv+"/below", object{"type": "kv"}, 400, taken),
			root.post("unknown type", "sys/mounts/"+kv+"x", object{"type": "nonsense"}, 400,
				failure("plugin not found in the catalog: nonsense")),
			root.post("no type", "sys/mounts/"+kv+"x", object{}, 400,
				failure("backend type must be specified as a string")),
			root.get("no such mount", "sys/mounts/"+kv+"x", 400,
				failure("No secret engine mount at "+kv+"x/")),
			root.delete("unmount", "sys/mounts/"+kv, 204),
			root.delete("unmount again", "sys/mounts/"+kv, 204),
			root.post("enable", "sys/auth/"+approle, object{"type": "approle"}, 204, nil),
			root.post("enable again", "sys/auth/"+approle, object{"type": "approle"}, 400,
				failure("path is already in use at "+approle+"/")),
			root.get("no such auth method", "sys/auth/"+kv, 400,
				failure("No auth engine at "+kv+"/")),
		)
		role := vaulttest.Unique("elsewhere")
		roleID, secretID := v.AppRoleAt(t, approle, role, nil, "")
		answer := v.Call(t, "", http.MethodPost, "auth/"+approle+"/login",
			object{"role_id": roleID, "secret_id": secretID}, nil)
		if answer.Status != http.StatusOK {
			t.Errorf("login at %s: %d %s", approle, answer.Status, answer.Text)
		}
	})
}

func TestContractMountOfAPath(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		name := vaulttest.Unique("preflight")
		v.Policy(t, name, `path "secret/data/`+name+`/*" { capabilities = ["read"] }`)
		reader, other := v.Token(t, time.Hour, name), v.Token(t, time.Hour, "default")
		answer := v.Call(t, reader, http.MethodGet, "sys/internal/ui/mounts/secret/"+name+"/x", nil,
			nil)
		data, _ := answer.Body["data"].(map[string]any)
		options, _ := data["options"].(map[string]any)
		if answer.Status != http.StatusOK || data["path"] != "secret/" || data["type"] != "kv" ||
			options["version"] != "2" {
			t.Errorf("allowed: %d %s", answer.Status, answer.Text)
		}
		denied := failure("preflight capability check returned 403, please ensure client's " +
			"policies grant access to path \"secret/x/\"")
		expect(t, v,
			call{"denied", other, http.MethodGet, "sys/internal/ui/mounts/secret/x", nil, nil, 403,
				denied},
			call{"no token", "", http.MethodGet, "sys/internal/ui/mounts", nil, nil, 200,
				envelope("", object{"data": object{"auth": object{}, "secret": object{}}})},
		)
	})
}

func TestContractWrapping(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		role := vaulttest.Unique("wrap")
		roleID, _ := v.AppRole(t, role, nil, "")
		wrapping := v.WrappedSecretID(t, "approle", role, time.Minute)
		spoiled := v.WrappedSecretID(t, "approle", role, time.Minute)
		looked := envelope("", object{"data": object{
			"creation_path": "auth/approle/role/" + role + "/secret-id", "creation_time": some, "creation_ttl": 60}})
		inside := envelope("approle", object{"data": object{
			"secret_id": some, "secret_id_accessor": some, "secret_id_num_uses": 0, "secret_id_ttl": 0}})
		outside := func(path string, changes object) object {
			info := object{"token": some, "accessor": some, "ttl": 60, "creation_time": some,
				"creation_path": path}
			for name, value := range changes {
				info[name] = value
			}
			return envelope("", object{"request_id": "", "wrap_info": info})
		}
		bad := failure("wrapping token is not valid or does not exist")
		minute := http.Header{"X-Vault-Wrap-Ttl": {"60s"}}
		post := func(name, token, path string, body any, status int, want object) call {
			return call{name, token, http.MethodPost, path, body, nil, status, want}
		}
		wrapped := func(name, token, path string, body any, status int, want object) call {
			return call{name, token, http.MethodPost, path, body, minute, status, want}
		}
		expect(t, v,
			post("lookup", "", "sys/wrapping/lookup", object{"token": wrapping}, 200, looked),
			post("lookup with itself", wrapping, "sys/wrapping/lookup", nil, 200, looked),
			post("unwrap", wrapping, "sys/wrapping/unwrap", nil, 200, inside),
			post("unwrap again", wrapping, "sys/wrapping/unwrap", nil, 400, bad),
			post("unwrap again, in the body", "", "sys/wrapping/unwrap", object{"token": wrapping},
				400, bad),
			post("lookup when spent", "", "sys/wrapping/lookup", object{"token": wrapping}, 400,
				bad),
			post("unwrap nothing", "", "sys/wrapping/unwrap", nil, 403,
				failure("error validating wrapping token: token is empty")),
			post("unwrap garbage", "garbage", "sys/wrapping/unwrap", nil, 400, bad),
			post("unwrap a token that wraps nothing", v.RootToken, "sys/wrapping/unwrap", nil, 400,
				bad),
			call{"a wrapping token reads nothing", spoiled, http.MethodGet, "secret/data/x", nil,
				nil, 403, policyDenied},
			post("and is spent by trying", spoiled, "sys/wrapping/unwrap", nil, 400, bad),
			wrapped("wrap a secret ID", v.RootToken, "auth/approle/role/"+role+"/secret-id", nil,
				200,
				outside("auth/approle/role/"+role+"/secret-id", object{"wrapped_accessor": some})),
			wrapped("wrap a login", "", "auth/approle/login",
				object{"role_id": roleID, "secret_id": v.SecretID(t, "approle", role)}, 200,
				outside("auth/approle/login", object{"wrapped_accessor": some})),
			wrapped("wrap anything", v.RootToken, "sys/wrapping/wrap", object{"a": "b"}, 200,
				outside("sys/wrapping/wrap", nil)),
			post("wrap without a ttl", v.RootToken, "sys/wrapping/wrap", object{"a": "b"}, 400,
				failure("endpoint requires response wrapping to be used")),
			call{"an error is not wrapped", v.RootToken, http.MethodGet, "secret/data/" + role, nil,
				minute, 404, notFound},
		)
		brief := v.WrappedSecretID(t, "approle", role, time.Second)
		eventually(t, func() bool {
			return v.Call(t, "", http.MethodPost, "sys/wrapping/lookup", object{"token": brief},
				nil).Status != http.StatusOK
		})
		expect(t, v, post("unwrap when expired", brief, "sys/wrapping/unwrap", nil, 400, bad))
	})
}

func TestContractHealthAndSeal(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		v.WriteSecret(t, "secret/data/kept", map[string]any{"k": "v"})
		roleID, secretID := v.AppRole(t, "role", nil, "")
		check := func(status int, sealed bool) {
			t.Helper()
			answer := v.Call(t, "", http.MethodGet, "sys/health", nil, nil)
			if answer.Status != status || answer.Body["sealed"] != sealed ||
				answer.Body["initialized"] != true ||
				answer.Body["standby"] != sealed || answer.Body["version"] != "1.21.2" {
				t.Errorf("health: %d %s, want status %d and sealed %v", answer.Status, answer.Text,
					status, sealed)
			}
			if answer := v.Call(t, "", http.MethodGet, "sys/seal-status", nil,
				nil); answer.Status != 200 || answer.Body["sealed"] != sealed {
				t.Errorf("seal status: %d %s, want sealed %v", answer.Status, answer.Text, sealed)
			}
		}
		check(200, false)
		v.Seal(t)
		check(503, true)
		sealed := failure("Vault is sealed")
		unwrap := call{"unwrap", "x", http.MethodPost, "sys/wrapping/unwrap", nil, nil, 503, sealed}
		expect(t, v,
			call{"read", v.RootToken, http.MethodGet, "secret/data/kept", nil, nil, 503, sealed},
			login("login", roleID, secretID, 503, sealed), unwrap,
		)
		v.Unseal(t)
		check(200, false)
		expect(t, v,
			call{"read", v.RootToken, http.MethodGet, "secret/data/kept", nil, nil, 200,
				secret(object{"k": "v"}, version(1, nil))},
			login("login", roleID, secretID, 200, envelope("", object{"auth": auth("role", nil)})),
		)
	})
}
