package devvault_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// version is the metadata of a version of a secret.
func version(n int, changes object) object {
	fields := object{"created_time": some, "custom_metadata": nil, "deletion_time": "",
		"destroyed": false, "version": n}
	for name, value := range changes {
		fields[name] = value
	}
	return fields
}

// secret is the answer to a read of KV version 2.
func secret(data any, metadata object) object {
	return envelope("kv", object{"data": object{"data": data, "metadata": metadata}})
}

// gone is the answer to a read of a deleted or destroyed version: 404 with a body.
func gone(metadata object) object {
	return envelope("", object{"data": object{"data": nil, "metadata": metadata}})
}

// wrongPath is the answer of a KV version 2 engine to a path that is not one of its own.
func wrongPath(command string) object {
	return envelope("",
		object{"warnings": []string{"Invalid path for a versioned K/V secrets engine. See the " +
			"API docs for the " +
			"appropriate API endpoints to use. If using the Vault CLI, use 'vault kv " + command +
			"' for this operation."}})
}

// kvCalls makes calls with the root token.
type kvCalls struct{ token string }

func (k kvCalls) get(name, path string, status int, want object) call {
	return call{name, k.token, http.MethodGet, path, nil, nil, status, want}
}

func (k kvCalls) post(name, path string, body any, status int, want object) call {
	return call{name, k.token, http.MethodPost, path, body, nil, status, want}
}

func (k kvCalls) delete(name, path string, status int) call {
	return call{name, k.token, http.MethodDelete, path, nil, nil, status, nil}
}

func (k kvCalls) list(name, path string, status int, want object) call {
	return call{name, k.token, "LIST", path, nil, nil, status, want}
}

func TestContractKV2Versions(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		root := kvCalls{v.RootToken}
		name := vaulttest.Unique("kv")
		at, one, two := "secret/data/"+name, object{"k": "one"}, object{"k": "two"}
		written := func(n int) object { return envelope("kv", object{"data": version(n, nil)}) }
		versions := func(n ...int) object { return object{"versions": n} }
		deleted, destroyed := object{"deletion_time": some}, object{"destroyed": true}
		expect(t, v,
			root.get("a secret that never was", at, 404, notFound),
			root.post("write", at, object{"data": one}, 200, written(1)),
			root.get("read", at, 200, secret(one, version(1, nil))),
			root.post("write again", at, object{"data": two}, 200, written(2)),
			root.get("latest", at, 200, secret(two, version(2, nil))),
			root.get("version 0 is the latest", at+"?version=0", 200, secret(two, version(2, nil))),
			root.get("a negative version too", at+"?version=-1", 200, secret(two, version(2, nil))),
			root.get("version 1", at+"?version=1", 200, secret(one, version(1, nil))),
			root.get("a version that never was", at+"?version=9", 404, notFound),
			root.get("a version that is no number", at+"?version=abc", 400,
				failure(`Field validation failed: error converting input `+
					`for field "version": cannot parse '' as int: strconv.ParseInt: parsing "abc": invalid syntax`)),
			root.delete("delete the latest", at, 204),
			root.get("deleted", at, 404, gone(version(2, deleted))),
			root.get("deleted, by number", at+"?version=2", 404, gone(version(2, deleted))),
			root.get("the other one is still there", at+"?version=1", 200,
				secret(one, version(1, nil))),
			root.post("undelete", "secret/undelete/"+name, versions(2), 204, nil),
			root.get("undeleted", at, 200, secret(two, version(2, nil))),
			root.post("destroy", "secret/destroy/"+name, versions(2), 204, nil),
			root.get("destroyed", at, 404, gone(version(2, destroyed))),
			root.post("undelete does not bring it back", "secret/undelete/"+name, versions(2), 204,
				nil),
			root.get("still destroyed", at, 404, gone(version(2, destroyed))),
			root.post("delete by number", "secret/delete/"+name, versions(1), 204, nil),
			root.get("deleted by number", at+"?version=1", 404, gone(version(1, deleted))),
			root.post("a write after all that", at, object{"data": one}, 200, written(3)),
			root.get("is read", at, 200, secret(one, version(3, nil))),
			root.post("destroy without a version", "secret/destroy/"+name, object{}, 400,
				failure("no version number provided")),
			root.delete("delete everything", "secret/metadata/"+name, 204),
			root.get("as if it never was", at, 404, notFound),
			root.delete("delete what is not there", at, 204),
			root.post("undelete what is not there", "secret/undelete/"+name, versions(1), 204, nil),
		)
	})
}

func TestContractKV2Values(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, write, read string }{
		{"strings, the empty one too", `{"a":"x","b":""}`, `{"a":"x","b":""}`},
		{"null", `null`, `null`},
		{"nothing", `{}`, `{}`},
		{"a null key", `{"k":null}`, `{"k":null}`},
		{"nested, keys sorted", `{"o":{"z":[1,{"b":true,"a":false}],"y":{}},"a":[]}`, `{"a":[],"o":{"y":{},"z":[1,{"a":false,"b":true}]}}`},
		{"whole numbers", `{"n":9007199254740991}`, `{"n":9007199254740991}`},
		{"numbers past float64 are rounded", `{"n":12345678901234567890.10}`, `{"n":12345678901234567000}`},
		{"numbers lose their form", `{"a":2.50,"b":1e3,"c":1e21,"d":1e-7,"e":-0.0}`, `{"a":2.5,"b":1000,"c":1e+21,"d":1e-7,"e":-0}`},
		{"characters of HTML are escaped", `{"h":"<a href=\"x\">&'</a>"}`, `{"h":"\u003ca href=\"x\"\u003e\u0026'\u003c/a\u003e"}`},
		{"Unicode is not, line separators are", `{"u":"ü🔑\u00e9\u2028"}`, `{"u":"ü🔑é\u2028"}`},
		{"control characters", `{"c":"\n\t\r\u0000\u001f\u007f"}`, `{"c":"\n\t\r\u0000\u001f` + "\x7f" + `"}`},
		{"keys as they are", `{"a b/<c>.d":"x"}`, `{"a b/\u003cc\u003e.d":"x"}`},
	}
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		at := "secret/data/" + vaulttest.Unique("values")
		for _, c := range cases {
			if answer := v.Call(t, v.RootToken, http.MethodPost, at, `{"data":`+c.write+`}`,
				nil); answer.Status != http.StatusOK {
				t.Errorf("%s: write: status %d: %s", c.name, answer.Status, answer.Text)
				continue
			}
			answer := v.Call(t, v.RootToken, http.MethodGet, at, nil, nil)
			_, text, _ := strings.Cut(answer.Text, `"data":{"data":`)
			text, _, _ = strings.Cut(text, `,"metadata":`)
			if answer.Status != http.StatusOK || text != c.read {
				t.Errorf("%s: status %d, data %s, want %s", c.name, answer.Status, text, c.read)
			}
		}
	})
}

func TestContractKV2WritesThatVaultRefuses(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		root := kvCalls{v.RootToken}
		at := "secret/data/" + vaulttest.Unique("refused")
		noData := failure("no data provided")
		expect(t, v,
			root.post("no data", at, object{"x": 1}, 400, noData),
			root.post("no body", at, nil, 400, noData),
			root.post("data that is no object", at, object{"data": "x"}, 400,
				failure(`error converting input for field "data": '' expected a map, got 'string'`)),
			root.post("not JSON", at, "garbage", 400,
				failure("error parsing JSON: failed to parse JSON input: invalid character 'g' "+
					"looking for beginning of value")),
			root.post("a wrong check-and-set", at,
				object{"data": object{}, "options": object{"cas": 1}}, 400,
				failure("check-and-set parameter did not match the current version")),
			root.post("a right one", at, object{"data": object{}, "options": object{"cas": 0}}, 200,
				envelope("kv", object{"data": version(1, nil)})),
			root.post("a folder", at+"/", object{"data": object{}}, 400,
				failure("cannot write to a path ending in '/'")),
			root.post("a string of more than 1 MiB", at,
				object{"data": object{"k": strings.Repeat("x", 1<<20+1)}}, 500,
				failure("JSON string value exceeds allowed length")),
		)
	})
}

func TestContractKV2LargeSecret(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		at := "secret/data/" + vaulttest.Unique("large")
		mebibyte := `"` + strings.Repeat("x", 1<<20) + `"`
		data := `{"a":` + mebibyte + `,"b":` + mebibyte + `,"c":` + mebibyte + `,"d":` + mebibyte +
			`,"e":` + mebibyte + `}`
		if answer := v.Call(t, v.RootToken, http.MethodPost, at, `{"data":`+data+`}`,
			nil); answer.Status != http.StatusOK {
			t.Fatalf("write 5 MiB: status %d", answer.Status)
		}
		answer := v.Call(t, v.RootToken, http.MethodGet, at, nil, nil)
		if answer.Status != http.StatusOK ||
			!strings.Contains(answer.Text, `"data":{"data":`+data+`,"metadata":`) {
			t.Errorf("read 5 MiB: status %d, %d bytes", answer.Status, len(answer.Text))
		}
	})
}

func TestContractKV2Paths(t *testing.T) {
	t.Parallel()
	names := []string{
		"a b", "a?b#c%d", "100%", "%2e%2e", "%2e%2e/x", "ü/🔑", "a+b", "a&b=c;d", `"quoted"`,
		`back\slash`, "dot.", "...", ".hidden",
		"..x", "a..b", "ends ", " begins", "data", "data/data", "metadata/x", "config", "a:b@c",
		"<tag>", "~", "*", "+",
	}
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		root := kvCalls{v.RootToken}
		folder := "secret/data/" + vaulttest.Unique("paths")
		for i, name := range names {
			v.WriteSecret(t, folder+"/"+name, map[string]any{"i": i})
		}
		for i, name := range names {
			expect(t, v, root.get(name, vaulttest.EscapePath(folder+"/"+name), 200,
				secret(object{"i": i}, version(1, nil))))
		}
		expect(t, v,
			root.get("a control character", folder+"/a%09b", 400, nil),
			root.get("an invisible space", folder+"/a%C2%A0b", 400, nil),
			root.get("a folder", folder+"/", 404, wrongPath("get")),
			root.get("an escaped .. is a name", folder+"/%2e%2e/x", 404, notFound),
			root.get("an escaped slash is a slash", folder+"/%252e%252e%2Fx", 200,
				secret(object{"i": 4}, version(1, nil))),
		)
	})
}

func TestContractPathsAreCleanedByARedirect(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		for _, path := range []string{"secret/data/a/../b", "secret/data/a/./b",
			"secret/data/a//b"} {
			answer := v.Call(t, v.RootToken, http.MethodGet, path, nil, nil)
			if answer.Status != http.StatusTemporaryRedirect ||
				!strings.HasPrefix(answer.Header.Get("Location"), "/v1/secret/data/") {
				t.Errorf("%s: status %d to %q, want 307", path, answer.Status,
					answer.Header.Get("Location"))
			}
		}
	})
}

func TestContractPathsOutsideKV2(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		root := kvCalls{v.RootToken}
		missing, transit, nested := vaulttest.Unique("missing"), vaulttest.Unique("transit"),
			vaulttest.Unique("team")+"/data"
		v.Mount(t, transit, "transit", "")
		v.Mount(t, nested, "kv", "2")
		v.WriteSecret(t, nested+"/data/data", map[string]any{"k": "v"})
		noRoute := failure(`no handler for route "` + missing + `/data/x". route entry not found.`)
		expect(t, v,
			root.get("no mount", missing+"/data/x", 404, noRoute),
			root.post("write without a mount", missing+"/data/x", object{"data": object{}}, 404,
				noRoute),
			root.get("a mount that is not KV", transit+"/data/x", 404,
				failure("1 error occurred:\n\t* unsupported path\n\n")),
			root.get("a mount and a secret called data", nested+"/data/data", 200,
				secret(object{"k": "v"}, version(1, nil))),
			root.get("a KV version 1 path", "secret/x", 404, wrongPath("get")),
			root.post("write to a KV version 1 path", "secret/x", object{"a": 1}, 404,
				wrongPath("put")),
			root.list("list of a KV version 1 path", "secret/x", 404, wrongPath("list")),
			root.get("the mount itself", "secret", 404, wrongPath("get")),
			root.get("the root of data/", "secret/data/", 404, wrongPath("get")),
			root.get("the root of data", "secret/data", 404,
				envelope("",
					object{"warnings": []string{"Non-listing operations on the root of a K/V v2 " +
						"mount are not supported."}})),
		)
		v.Do(t, http.MethodDelete, "sys/mounts/"+transit, nil)
		expect(t, v, root.get("unmounted", transit+"/data/x", 404,
			failure(`no handler for route "`+transit+`/data/x". route entry not found.`)))
	})
}

func TestContractKV2Metadata(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		root := kvCalls{v.RootToken}
		mount := vaulttest.Unique("meta")
		v.Mount(t, mount, "kv", "2")
		custom := object{"custom_metadata": object{"a": "b"}}
		config := func(keep int, cas bool) object {
			return envelope("kv",
				object{"data": object{"cas_required": cas, "delete_version_after": "0s",
					"max_versions": keep}})
		}
		expect(t, v,
			root.list("nothing yet", mount+"/metadata", 404, notFound),
			root.post("metadata before data", mount+"/metadata/f/s",
				object{"custom_metadata": object{"a": "b"}, "max_versions": 2}, 204, nil),
			root.get("no version yet", mount+"/data/f/s", 404, notFound),
			root.post("1", mount+"/data/f/s", object{"data": object{"n": 1}}, 200,
				envelope("kv", object{"data": version(1, custom)})),
			root.post("2", mount+"/data/f/s", object{"data": object{"n": 2}}, 200,
				envelope("kv", object{"data": version(2, custom)})),
			root.post("3", mount+"/data/f/s", object{"data": object{"n": 3}}, 200,
				envelope("kv", object{"data": version(3, custom)})),
			root.get("the oldest is forgotten", mount+"/data/f/s?version=1", 404, notFound),
			root.get("the next is not", mount+"/data/f/s?version=2", 200,
				secret(object{"n": 2}, version(2, custom))),
			root.post("another", mount+"/data/other", object{"data": object{}}, 200,
				envelope("kv", object{"data": version(1, nil)})),
			root.list("list", mount+"/metadata", 200,
				envelope("kv", object{"data": object{"keys": []string{"f/", "other"}}})),
			root.list("list of a folder", mount+"/metadata/f", 200,
				envelope("kv", object{"data": object{"keys": []string{"s"}}})),
			root.get("list by parameter", mount+"/metadata/f?list=true", 200,
				envelope("kv", object{"data": object{"keys": []string{"s"}}})),
			root.get("config", mount+"/config", 200, config(0, false)),
			root.post("set config", mount+"/config",
				object{"max_versions": 3, "cas_required": true}, 204, nil),
			root.get("config as set", mount+"/config", 200, config(3, true)),
			root.post("check-and-set is missing", mount+"/data/other", object{"data": object{}},
				400,
				failure("check-and-set parameter required for this call")),
		)
	})
}

func TestContractKV1(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		root := kvCalls{v.RootToken}
		mount := vaulttest.Unique("kv1")
		v.Mount(t, mount, "kv", "1")
		read := func(data object) object {
			return envelope("kv", object{"data": data, "lease_duration": 2764800})
		}
		expect(t, v,
			root.get("missing", mount+"/x", 404, notFound),
			root.get("missing at a version 2 path", mount+"/data/x", 404, notFound),
			root.post("write", mount+"/x", object{"a": "b"}, 204, nil),
			root.get("read", mount+"/x", 200, read(object{"a": "b"})),
			root.post("write at a version 2 path", mount+"/data/x",
				object{"data": object{"a": "b"}}, 204, nil),
			root.get("read at a version 2 path", mount+"/data/x", 200,
				read(object{"data": object{"a": "b"}})),
			root.post("nothing", mount+"/x", nil, 400, failure("missing data fields")),
			root.list("list", mount, 200,
				envelope("kv", object{"data": object{"keys": []string{"data/", "x"}}})),
			root.delete("delete", mount+"/x", 204),
			root.get("deleted", mount+"/x", 404, notFound),
		)
		v.Call(t, v.RootToken, http.MethodPost, mount+"/n", `{"n":12345678901234567890.10}`, nil)
		answer := v.Call(t, v.RootToken, http.MethodGet, mount+"/n", nil, nil)
		if want := `"data":{"n":12345678901234567890.10}`; !strings.Contains(answer.Text, want) {
			t.Errorf("a number: %s, want %s", answer.Text, want)
		}
	})
}
