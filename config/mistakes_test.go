package config_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// mistakesOf returns the lines of Load's error without the file's name.
func mistakesOf(t *testing.T, text string) []string {
	t.Helper()
	path := write(t, text)
	_, err := config.Load(path, env(map[string]string{"EMPTY": "", "SET": "value"}))
	if err == nil {
		return nil
	}
	var mistakes config.Mistakes
	if !errors.As(err, &mistakes) || len(mistakes) == 0 {
		t.Fatalf("error %v is no Mistakes", err)
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimPrefix(lines[i], path+":"), " ")
	}
	return lines
}

// with returns the minimal configuration with lines added to the connection, which begin on line 6.
// The secret_id stands behind them, unless they say something of it.
func with(lines ...string) string {
	const secret = "    secret_id: secret\n"
	added := "    " + strings.Join(lines, "\n    ") + "\n"
	if !strings.Contains(added, " secret_id") && !strings.Contains(added, " secretid") &&
		!strings.Contains(added, "bind_secret_id") {
		added += secret
	}
	return strings.TrimSuffix(minimal, secret) + added
}

// instead returns the minimal configuration with one of its lines replaced.
func instead(old, line string) string { return strings.Replace(minimal, old, line, 1) }

func TestEveryMistakeIsReportedAtItsPlace(t *testing.T) {
	const address, role = "address: https://vault.example:8200", "    role_id: role\n"
	tests := []struct {
		name, text string
		want       []string // beginnings of the lines
	}{
		{"an empty file", "", []string{"the file is empty"}},
		{"only comments", "# nothing\n", []string{"the file is empty"}},
		{"two documents", minimal + "---\n" + minimal, []string{"7:1: the file holds several YAML documents"}},
		{"not UTF-8", "a: b\nc: \xff\n", []string{"2:4: the file is not UTF-8"}},
		{"a list at the top", "- a\n", []string{"1:1: want keys here: socket,"}},
		{"no connections key", "cache: {}\n", []string{"1:1: connections: name at least one"}},
		{"connections with nothing", "connections:\n", []string{"1:1: connections: name at least one"}},
		{"connections as a mapping", "connections: {name: a}\n", []string{"1:14: connections: want a list"}},
		{"a connection as text", "connections: [prod]\n", []string{"1:15: connections[0]: want keys here: name,"}},
		{"a connection with nothing", "connections:\n  - name: a\n", []string{
			"2:5: connections[0].address: is missing", "2:5: connections[0].role_id: is missing",
			"2:5: connections[0].secret_id: is missing",
		}},
		{"a typo at the top", "sokcet: {}\n" + minimal, []string{`1:1: unknown key "sokcet": did you mean "socket"?`}},
		{"a typo in connections says nothing else", strings.Replace(minimal, "connections", "conections", 1), []string{`1:1: unknown key "conections": did you mean "connections"?`}},
		{"a typo in a connection", with("secretid: x"), []string{`6:5: connections[0]: unknown key "secretid": did you mean "secret_id"?`}},
		{"a key at the wrong place", with("uid: 1"), []string{`6:5: connections[0]: unknown key: "uid" does not belong here`}},
		{"a log level that there is not", "log: {level: loud}\n" + minimal, []string{"1:14: log.level: want debug, info, warn or error"}},
		{"paths in traces as text", "traces: {paths: \"yes\"}\n" + minimal, []string{"1:17: traces.paths: want true or false"}},
		{"an unlike key is not named", with("password123: x"), []string{"6:5: connections[0]: unknown key; the keys here are name,"}},
		{"unknown keys at every level", "x1: 1\nsocket: {x2: 1}\ncallers: [{uid: 1, x3: 1}]\ncache: {x4: 1}\ndefaults: {x5: 1, cache: {x6: 1}}\n" +
			with("tls: {x7: 1}", "cache: {x8: 1}"), []string{
			"1:1: unknown key", "2:10: socket: unknown key", "3:20: callers[0]: unknown key",
			"4:9: cache: unknown key", "5:12: defaults: unknown key",
			"5:27: defaults.cache: unknown key", "11:11: connections[0].tls: unknown key",
			"12:13: connections[0].cache: unknown key",
		}},
		{"a key twice", with("timeout: 1s", "timeout: 2s"), []string{"7:5: connections[0].timeout: is here twice, first on line 6"}},
		{"a Redis of another scheme", "invalidation: {redis: {url: 'http://x'}}\n" + minimal, []string{"1:29: invalidation.redis.url: is no URL of a Redis"}},
		{"a Redis with an unknown parameter", "invalidation: {redis: {url: 'redis://x?colour=red'}}\n" + minimal, []string{"1:29: invalidation.redis.url: is no URL of a Redis"}},
		{"a Redis that is not verified", "invalidation: {redis: {url: 'rediss://x?skip_verify=true'}}\n" + minimal, []string{"1:29: invalidation.redis.url: has skip_verify"}},
		{"a Redis with two passwords", "invalidation: {redis: {url: 'redis://:p@x', password_file: f}}\n" + minimal, []string{"1:29: invalidation.redis.url: holds a password, and there is password_file too"}},
		{"an authority without TLS", "invalidation: {redis: {url: 'redis://x', ca_file: f}}\n" + minimal, []string{"1:29: invalidation.redis.url: has no TLS for ca_file"}},
		{"a Redis without a URL", "invalidation: {redis: {stream: s}}\n" + minimal, []string{"1:23: invalidation.redis.url: is missing"}},
		{"a typo in a Redis", "invalidation: {redis: {urll: 'redis://x'}}\n" + minimal, []string{`1:24: invalidation.redis: unknown key "urll": did you mean "url"?`}},
		{"invalidation with nothing", "invalidation:\n" + minimal, []string{"1:1: invalidation.redis: is missing"}},
		{"a mistake below comments with the line ends of Windows", "# one\r\n# two\r\n" + strings.ReplaceAll(with("tmeout: 1s"), "\n", "\r\n"), []string{`8:5: connections[0]: unknown key "tmeout"`}},
		{"an anchor", with("tls: &t {}"), []string{`6:10: anchors, aliases and merge keys`}},
		{"an alias", with("tls: *t"), []string{`6:10: anchors, aliases and merge keys`}},
		{"a merge key", with("<<: {}"), []string{`6:5: anchors, aliases and merge keys`}},
		{"a tag", with("timeout: !!str 1s"), []string{`6:14: tags`}},
		{"an explicit key", "? a\n: b\n", []string{"1:1: explicit keys"}},
		{"an open quote", with(`secret_id: "x`), []string{`6:16: a double quote (") is opened and never closed`}},
		{"a tab", "connections:\n\t- name: a\n", []string{"2:1: a tab stands where only spaces may"}},

		{"numbers where text belongs", with("namespace: 5", "auth_mount: true"), []string{"6:16: connections[0].namespace: want text: put it in quotes", "7:17: connections[0].auth_mount: want text: put it in quotes"}},
		{"a list where text belongs", with("namespace: [a]"), []string{"6:16: connections[0].namespace: want text"}},
		{"nothing where text belongs", with("namespace:"), []string{"6:5: connections[0].namespace: has no value"}},
		{"a line break in text", with(`namespace: "a\nb"`), []string{"6:16: connections[0].namespace: holds a line break"}},
		{"text where a boolean belongs", with("required: yes"), []string{"6:15: connections[0].required: want true or false"}},
		{"text where keys belong", with("cache: 1h"), []string{"6:12: connections[0].cache: want keys here: ttl,"}},

		{"a duration without a unit", with("timeout: 10"), []string{"6:14: connections[0].timeout: has no unit"}},
		{"a duration in words", with("timeout: ten"), []string{"6:14: connections[0].timeout: want a duration such as"}},
		{"a duration in days", with("cache: {ttl: 1d}"), []string{"6:18: connections[0].cache.ttl: want a duration such as"}},
		{"a negative duration", with("cache: {max_stale: -1s}"), []string{"6:24: connections[0].cache.max_stale: must not be negative"}},
		{"a ttl of 0", with("cache: {ttl: 0s}"), []string{"6:18: connections[0].cache.ttl: must be more than 0"}},
		{"a timeout of 0", "defaults: {timeout: 0}\n" + minimal, []string{"1:21: defaults.timeout: must be more than 0"}},
		{"a giant duration", with("timeout: 1000000h"), []string{"6:14: connections[0].timeout: must not be more than 87600h"}},
		{"an overflowing duration", with("timeout: 99999999999h"), []string{"6:14: connections[0].timeout: want a duration"}},

		{"a size in words", "cache: {max_bytes: lots}\n" + minimal, []string{"1:20: cache.max_bytes: want a size such as 64MiB"}},
		{"a size with a wrong unit", "cache: {max_bytes: 64Mi}\n" + minimal, []string{"1:20: cache.max_bytes: want a size such as 64MiB"}},
		{"a size of 0", "cache: {max_bytes: 0}\n" + minimal, []string{"1:20: cache.max_bytes: must be more than 0"}},
		{"a negative size", "cache: {max_bytes: -5}\n" + minimal, []string{"1:20: cache.max_bytes: want a size"}},
		{"an overflowing size", "cache: {max_bytes: 9999999999GiB}\n" + minimal, []string{"1:20: cache.max_bytes: is too large"}},

		{"a mode in letters", "socket: {mode: rw-------}\n" + minimal, []string{"1:16: socket.mode: want three octal digits"}},
		{"a mode with more than permission bits", `socket: {mode: "4600"}` + "\n" + minimal, []string{"1:16: socket.mode: want three octal digits"}},
		{"a mode that shuts the owner out", "socket: {mode: 0060}\n" + minimal, []string{"1:16: socket.mode: must let the owner read and write"}},
		{"a mode of 0", "socket: {mode: 0}\n" + minimal, []string{"1:16: socket.mode: want three octal digits"}},
		{"a relative socket", "socket: {path: run/s.sock}\n" + minimal, []string{"1:16: socket.path: must be an absolute path"}},
		{"a long socket path", "socket: {path: /" + strings.Repeat("x", 107) + "}\n" + minimal, []string{"1:16: socket.path: has 108 bytes, Linux allows 107"}},

		{"a name with a space", instead("prod", "pr od"), []string{`2:11: connections[0].name: may hold only letters`}},
		{"a name of 65 characters", instead("prod", strings.Repeat("a", 65)), []string{`2:11: connections[0].name: may hold only letters`}},
		{"a name twice", minimal + strings.TrimPrefix(minimal, "connections:\n"), []string{"7:11: connections[1].name: another connection has this name, on line 2"}},
		{"an alias that is no name", with("aliases: [pr od]"), []string{"6:15: connections[0].aliases[0]: may hold only letters"}},
		{"an alias twice", with("aliases: [a, a]"), []string{"6:18: connections[0].aliases[1]: another connection has this name, on line 6"}},
		{"an alias that is the name", with("aliases: [prod]"), []string{"6:15: connections[0].aliases[0]: another connection has this name, on line 2"}},
		{"an alias that is a later name", with("aliases: [dev]") + strings.Replace(strings.TrimPrefix(minimal, "connections:\n"), "prod", "dev", 1), []string{
			"8:11: connections[1].name: another connection has this name, on line 6",
		}},
		{"no aliases", with("aliases: []"), []string{"6:14: connections[0].aliases: is an empty list"}},
		{"no paths", with("paths: []"), []string{"6:12: connections[0].paths: is an empty list"}},
		{"an empty path", with(`paths: [""]`), []string{"6:13: connections[0].paths[0]: is empty"}},
		{"a path with a control character", with(`paths: ["a/data/b\tc/*"]`), []string{"6:13: connections[0].paths[0]: holds a line break"}},
		{"patterns that match nothing", with(`paths: [secret/app/*, "secret/data/{project}/*", /a/data/b/*]`), []string{
			"6:13: connections[0].paths[0]: matches no reference: there is no data segment",
			"6:27: connections[0].paths[1]: the one variable is {project_id}",
			"6:54: connections[0].paths[2]: matches no reference: remove leading",
		}},
		{"a rule's patterns that match nothing", "callers:\n  - uid: 1\n    paths:\n      - a/data/**/key\n      - a/data/x*/key\n" + minimal, []string{
			"4:9: callers[0].paths[0]: ** is what is left", "5:9: callers[0].paths[1]: a star stands for a whole segment",
		}},
		{"a name missing", instead("- name: prod\n   ", "-"), []string{"2:5: connections[0].name: is missing"}},
		{"a scope missing beside project_ids", instead("    scope: platform\n", "    project_ids: [p]\n"), []string{"2:5: connections[0].scope: is missing"}},
		{"an unknown scope", instead("platform", "global"), []string{"3:12: connections[0].scope: want platform or project"}},
		{"scope project without projects", instead("platform", "project"), []string{"3:12: connections[0].scope: scope project needs project_ids"}},
		{"scope project with an empty list", instead("platform", "project\n    project_ids: []"), []string{"4:18: connections[0].project_ids: is an empty list"}},
		{"projects without scope project", with("project_ids: [p]"), []string{`6:18: connections[0].project_ids: belongs to "scope: project"`}},

		{"an address without a scheme", instead(address, "address: vault:8200"), []string{"4:14: connections[0].address: want http:// or https://"}},
		{"an address of another scheme", instead(address, "address: ftp://vault"), []string{"4:14: connections[0].address: want http:// or https://"}},
		{"an address with a path", instead(address, "address: https://vault/v1"), []string{"4:14: connections[0].address: must not hold a path"}},
		{"an address with a query", instead(address, "address: https://vault?x"), []string{`4:14: connections[0].address: must not hold "?"`}},
		{"an address with a fragment", instead(address, "address: https://vault#x"), []string{`4:14: connections[0].address: must not hold "?"`}},
		{"an address with a user", instead(address, "address: https://u:p@vault"), []string{"4:14: connections[0].address: must not hold a user"}},
		{"an address without a host", instead(address, "address: https://:8200"), []string{"4:14: connections[0].address: want http://"}},
		{"an address with a bad port", instead(address, "address: https://vault:70000"), []string{"4:14: connections[0].address: the port must be"}},
		{"an auth mount with auth/", with("auth_mount: auth/approle"), []string{"6:17: connections[0].auth_mount: leave the leading auth/ out"}},
		{"an auth mount that climbs", with("auth_mount: a/../b"), []string{"6:17: connections[0].auth_mount: must be a mount path"}},

		{"no role_id", instead(role, ""), []string{"2:5: connections[0].role_id: is missing"}},
		{"an empty role_id", instead(role, "    role_id: \"\"\n"), []string{"5:14: connections[0].role_id: is empty"}},
		{"two kinds of role_id", with("role_id_file: /x"), []string{"6:19: connections[0].role_id_file: only one of role_id, role_id_file and role_id_env"}},
		{"three kinds of secret_id", with("secret_id: x", "secret_id_file: /x", "secret_id_env: SET"), []string{
			"7:21: connections[0].secret_id_file: only one of",
			"8:20: connections[0].secret_id_env: only one of",
		}},
		{"a variable that is not set", with("secret_id_env: UNSET"), []string{"6:20: connections[0].secret_id_env: the environment variable that it names is not set"}},
		{"a variable that is empty", with("secret_id_env: EMPTY"), []string{"6:20: connections[0].secret_id_env: the environment variable that it names: is empty"}},
		{"a wrapped secret_id that is not there", with("bind_secret_id: false", "secret_id_wrapped: true"), []string{"7:24: connections[0].secret_id_wrapped: there is no secret_id to unwrap"}},
		{"a client certificate without its key", with("tls: {client_cert_file: /c}"), []string{"6:29: connections[0].tls.client_cert_file: needs client_key_file"}},
		{"a client key without its certificate", with("tls: {client_key_file: /c}"), []string{"6:28: connections[0].tls.client_key_file: needs client_cert_file"}},
		{"nobody may wait", with("max_waiting: 0"), []string{"6:18: connections[0].max_waiting: want a whole number from 1"}},

		{"callers with nothing", "callers:\n" + minimal, []string{"1:1: callers: has no rules"}},
		{"a rule for nobody", "callers:\n  - methods: [Resolve]\n" + minimal, []string{"2:5: callers[0]: a rule needs uid, gid or both"}},
		{"a rule that names what does not exist", "callers:\n  - uid: 1\n    connections: [prod, dev]\n    methods: [resolve, Renew]\n" + minimal, []string{
			"3:25: callers[0].connections[1]: no connection has this name",
			"4:15: callers[0].methods[0]: no such method",
			"4:24: callers[0].methods[1]: no such method",
		}},
		{"a rule with lists that would mean any", "callers:\n  - uid: 1\n    projects: []\n    connections:\n" + minimal, []string{
			"3:15: callers[0].projects: is an empty list",
			"4:5: callers[0].connections: want a list",
		}},
		{"a negative uid", "callers: [{uid: -1}]\n" + minimal, []string{"1:17: callers[0].uid: want a whole number from 0"}},
		{"a uid by name", "callers: [{uid: root}]\n" + minimal, []string{"1:17: callers[0].uid: want a whole number from 0"}},
		{"the uid that means no change", "callers: [{uid: 4294967295}]\n" + minimal, []string{"1:17: callers[0].uid: want a whole number from 0"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := mistakesOf(t, test.text)
			for i := range max(len(got), len(test.want)) {
				if i >= len(got) || i >= len(test.want) ||
					!strings.HasPrefix(got[i], test.want[i]) {
					t.Fatalf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "),
						strings.Join(test.want, "\n  "))
				}
			}
		})
	}
}

// Slips are what people write from habit. Each is one mistake, at its place, which says what to
// write.
func TestAUsualSlipSaysWhatToWrite(t *testing.T) {
	const address = "address: https://vault.example:8200"
	for name, test := range map[string]struct{ text, place, want string }{
		"a caller by user":           {"callers: [{uid: 1, user: app}]\n" + minimal, "1:20: callers[0]: ", "id -u NAME"},
		"a caller by user alone":     {"callers: [{user: app}]\n" + minimal, "1:12: callers[0]: ", "id -u NAME"},
		"a role in place of its id":  {instead("role_id: role", "role: app"), "5:5: connections[0]: ", "vault read -field=role_id"},
		"a url":                      {instead("address: https", "url: https"), "4:5: connections[0]: ", "write address"},
		"a caller by username":       {"callers: [{uid: 1, userName: app}]\n" + minimal, "1:20: callers[0]: ", "id -u NAME"},
		"a caller by group":          {"callers: [{gid: 1, group: app}]\n" + minimal, "1:20: callers[0]: ", "getent group NAME"},
		"a uid by name":              {"callers: [{uid: app}]\n" + minimal, "1:17: callers[0].uid: ", "write the number that id -u NAME prints"},
		"a gid by name":              {"callers: [{gid: app}]\n" + minimal, "1:17: callers[0].gid: ", "write the number that getent group NAME prints"},
		"mode 777":                   {"socket: {mode: 777}\n" + minimal, "1:16: socket.mode: ", `would let every user of the machine open the socket: write "0660"`},
		"mode 666":                   {"socket: {mode: 666}\n" + minimal, "1:16: socket.mode: ", "every user of the machine"},
		"a decimal mode":             {"socket: {mode: 432}\n" + minimal, "1:16: socket.mode: ", `if a decimal number is meant, write "0660"`},
		"another decimal mode":       {"socket: {mode: 384}\n" + minimal, "1:16: socket.mode: ", `if a decimal number is meant, write "0600"`},
		"a long mode":                {"socket: {mode: 10660}\n" + minimal, "1:16: socket.mode: ", "want three octal digits in quotes"},
		"a mode as ls shows it":      {"socket: {mode: srw-rw----}\n" + minimal, "1:16: socket.mode: ", "want three octal digits in quotes"},
		"a mode as chmod takes it":   {"socket: {mode: \"u=rw\"}\n" + minimal, "1:16: socket.mode: ", "want three octal digits in quotes"},
		"a port":                     {"port: 8080\n" + minimal, "1:1: ", "Unix socket alone"},
		"a ttl at the top":           {"ttl: 1h\n" + minimal, "1:1: ", "defaults: {cache: {ttl: 1h}}"},
		"a log_level":                {"log_level: info\n" + minimal, "1:1: ", "log: {level: info}"},
		"a ttl in a connection":      {with("ttl: 3600"), "6:5: connections[0]: ", "cache: {ttl: 1h}"},
		"a ttl in the cache":         {"cache: {ttl: 1h}\n" + minimal, "1:9: cache: ", "defaults: {cache: {ttl: 1h}}"},
		"a ttl without a unit":       {with("cache: {ttl: 3600}"), "6:18: connections[0].cache.ttl: ", "has no unit"},
		"a ttl in quotes, no unit":   {with(`cache: {ttl: "3600"}`), "6:18: connections[0].cache.ttl: ", "has no unit"},
		"a ttl of a day":             {with("cache: {ttl: 1d}"), "6:18: connections[0].cache.ttl: ", "there is no unit for days"},
		"a timeout in words":         {with("timeout: 10sec"), "6:14: connections[0].timeout: ", "the unit is one letter"},
		"a timeout with a space":     {with("timeout: 10 s"), "6:14: connections[0].timeout: ", "without a space"},
		"a token":                    {with("token: hvs.hush"), "6:5: connections[0]: ", "logs in by AppRole"},
		"policies":                   {with("policies: [app]"), "6:5: connections[0]: ", "remove the key"},
		"a CA beside tls":            {with("ca_file: /ca.pem"), "6:5: connections[0]: ", "tls: {ca_file"},
		"skipped verification":       {with("tls: {insecure: true}"), "6:11: connections[0].tls: ", "always verified"},
		"a role by name":             {with("role: app"), "6:5: connections[0]: ", "vault read -field=role_id"},
		"a mount of secrets":         {with("mount: secret"), "6:5: connections[0]: ", "auth_mount"},
		"projects":                   {with("projects: [p]"), "6:5: connections[0]: ", "project_ids"},
		"scope projects":             {strings.Replace(minimal, "platform", "projects", 1), "3:12: connections[0].scope: ", "did you mean project?"},
		"scope Platform":             {strings.Replace(minimal, "platform", "Platform", 1), "3:12: connections[0].scope: ", "did you mean platform?"},
		"scope global":               {strings.Replace(minimal, "platform", "global", 1), "3:12: connections[0].scope: ", "platform serves every project"},
		"no scheme":                  {instead(address, "address: vault.example"), "4:14: connections[0].address: ", "put https:// in front"},
		"no scheme, a port":          {instead(address, "address: 10.0.0.1:8200"), "4:14: connections[0].address: ", "put https:// in front"},
		"an address with /v1":        {instead(address, "address: https://vault/v1/"), "4:14: connections[0].address: ", "leave /v1 out"},
		"a variable as address":      {instead(address, `address: "${VAULT_ADDR}"`), "4:14: connections[0].address: ", "variables are not replaced"},
		"a variable as secret_id":    {with("secret_id: ${HUSH}"), "6:16: connections[0].secret_id: ", "use secret_id_env"},
		"a shell variable":           {with("secret_id: $HUSH"), "6:16: connections[0].secret_id: ", "use secret_id_env"},
		"a template as secret_id":    {with(`secret_id: "{{ .Values.hush }}"`), "6:16: connections[0].secret_id: ", "use secret_id_env"},
		"a variable with a dollar":   {with("secret_id_env: $HUSH"), "6:20: connections[0].secret_id_env: ", "name alone"},
		"a reference as role_id":     {instead("role_id: role", "role_id: secret/data/hush/role_id"), "5:14: connections[0].role_id: ", "holds a path in Vault"},
		"a role's path as role_id":   {instead("role_id: role", "role_id: auth/approle/role/hush"), "5:14: connections[0].role_id: ", "vault read -field=role_id"},
		"a path as role_id":          {instead("role_id: role", "role_id: /run/hush"), "5:14: connections[0].role_id: ", "use role_id_file"},
		"two letters swapped":        {with("tiemout: 1s"), "6:5: connections[0]: ", `did you mean "timeout"?`},
		"two swapped in a short one": {"socket: {moed: \"0600\"}\n" + minimal, "1:10: socket: ", `did you mean "mode"?`},
		"the nearest of two":         {with("client_cert: x"), "6:5: connections[0]: ", "the keys here are"},
		"secret_id_files":            {with("secret_id_files: x"), "6:5: connections[0]: ", `did you mean "secret_id_file"?`},
	} {
		got := mistakesOf(t, test.text)
		if len(got) != 1 || !strings.HasPrefix(got[0], test.place) ||
			!strings.Contains(got[0], test.want) ||
			strings.Contains(strings.ToLower(got[0]), "hush") {
			t.Errorf("%s: %q\nwant %s…%s", name, got, test.place, test.want)
		}
	}
}

func TestAMistakePrintsFilePlacePathAndMessage(t *testing.T) {
	path := write(t, with("timeout: 10"))
	_, err := config.Load(path, noEnv)
	if want := fmt.Sprintf("%s:6:14: connections[0].timeout: has no unit: write 10s, 15m or 1h30m",
		path); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestNoMessageShowsACredential(t *testing.T) {
	const value = "hunter2"
	connection := func(lines string) string {
		return "connections:\n  - name: prod\n    scope: platform\n    address: http://v\n    " +
			"role_id: role\n" + lines
	}
	for name, text := range map[string]string{
		"a colon is missing":             connection("    secret_id hunter2\n"),
		"a colon is missing, more keys":  connection("    secret_id hunter2\n    timeout: 1s\n"),
		"a space is missing":             connection("    secret_id:hunter2\n    timeout: 1s\n"),
		"a space is missing at the end":  connection("    secret_id:hunter2\n"),
		"a mistyped key":                 connection("    secretid: hunter2\n"),
		"an unlike key":                  connection("    password: hunter2\n"),
		"the value is the key":           connection("    hunter2: secret_id\n"),
		"the value is a nested key":      connection("    secret_id: {hunter2: x}\n"),
		"the value is a block key":       connection("    secret_id:\n      hunter2: x\n"),
		"the value is a list":            connection("    secret_id: [hunter2]\n"),
		"a broken double quote":          connection("    secret_id: \"hunter2\n    timeout: 1s\n"),
		"a broken single quote":          connection("    secret_id: 'hunter2\n    timeout: 1s\n"),
		"text after a quote":             connection("    secret_id: \"x\" hunter2\n"),
		"a bad escape":                   connection("    secret_id: \"\\qhunter2\"\n"),
		"a second colon":                 connection("    secret_id: x: hunter2\n"),
		"an at sign":                     connection("    secret_id: @hunter2\n"),
		"a back quote":                   connection("    secret_id: `hunter2\n"),
		"an anchor":                      connection("    secret_id: &hunter2\n"),
		"an alias":                       connection("    secret_id: *hunter2\n"),
		"a tag":                          connection("    secret_id: !hunter2\n"),
		"a tag with a value":             connection("    secret_id: !!int hunter2\n"),
		"a block text header":            connection("    secret_id: |hunter2\n      x\n"),
		"a folded text header":           connection("    secret_id: >hunter2\n"),
		"an open brace":                  connection("    secret_id: {hunter2\n"),
		"an open bracket":                connection("    secret_id: [hunter2\n"),
		"a comma in a flow mapping":      "connections: [{name: a, scope: platform, address: http://v, role_id: r, secret_id: x,hunter2}]\n",
		"a wrong indentation":            connection("    secret_id: x\n   hunter2: y\n"),
		"a key twice":                    connection("    secret_id: hunter2\n    secret_id: hunter2\n"),
		"a mistake on the line above":    connection("    timeout: x\n    secret_id: hunter2\n"),
		"a mistake on the line below":    connection("    secret_id: hunter2\n    timeout: x\n"),
		"a syntax error beside it":       connection("    secret_id: hunter2\n    timeout: \"\n"),
		"a control character":            connection("    secret_id: \"hunter2\\x01\"\n"),
		"it names a variable":            connection("    secret_id_env: hunter2\n"),
		"two kinds":                      connection("    secret_id: hunter2\n    secret_id_env: hunter2\n"),
		"in the address":                 connection("    namespace: 5\n") + "  - {name: b, scope: platform, role_id: r, address: 'https://u:hunter2@v'}\n",
		"in an address that is no URL":   connection("") + "  - {name: b, scope: platform, role_id: r, address: 'https://u:hunter2%zz@v'}\n",
		"as a name":                      connection("") + "  - {name: hunter2!, scope: platform, role_id: r, address: 'https://v'}\n",
		"as a name twice":                connection("") + "  - {name: hunter2, scope: platform, role_id: r, address: 'https://v'}\n  - {name: hunter2, scope: platform, role_id: r, address: 'https://v'}\n",
		"as a scope":                     connection("") + "  - {name: b, scope: hunter2, role_id: r, address: 'https://v'}\n",
		"as a duration":                  connection("    timeout: hunter2\n"),
		"as a number":                    connection("    max_waiting: hunter2\n"),
		"as a boolean":                   connection("    secret_id_wrapped: hunter2\n"),
		"as a size":                      "cache: {max_bytes: hunter2}\n" + connection(""),
		"as a mode":                      "socket: {mode: hunter2}\n" + connection(""),
		"as a path":                      "socket: {path: hunter2}\n" + connection(""),
		"in a rule":                      "callers: [{uid: hunter2, connections: [hunter2], methods: [hunter2]}]\n" + connection(""),
		"in the URL of a Redis":          "invalidation: {redis: {url: 'redis://:hunter2@r?x=y'}}\n" + connection(""),
		"in the URL of no Redis":         "invalidation: {redis: {url: 'redis://:hunter2%zz@r'}}\n" + connection(""),
		"as a connection":                "connections:\n  - hunter2\n",
		"as the whole file":              "hunter2",
		"as a key of another document":   connection("") + "---\nhunter2: x\n",
		"as a directive":                 "%hunter2 x\n---\n" + connection(""),
		"as a merge":                     connection("    <<: hunter2\n"),
		"as an explicit key":             connection("    ? hunter2\n    : x\n"),
		"as a file that cannot be read":  connection("    secret_id_file: hunter2\n"),
		"as a CA file":                   connection("    tls: {ca_file: hunter2}\n"),
		"in bytes that are not UTF-8":    connection("    secret_id: hunter2\xff\n"),
		"continued on the next line":     connection("    secret_id: x\n      hunter2: y\n"),
		"a text of several lines":        connection("    secret_id: \"x\n      hunter2\n    timeout: 1s\n"),
		"a tab before it":                connection("\tsecret_id: hunter2\n"),
		"a tab in front of the value":    connection("    secret_id:\thunter2: x\n"),
		"a document end in front of it":  connection("... hunter2\n"),
		"a document mark in front of it": connection("--- hunter2\n"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Check(write(t, text), noEnv)
			var mistakes config.Mistakes
			if !errors.As(err, &mistakes) {
				t.Fatalf("error %v is no Mistakes", err)
			}
			for _, form := range []string{err.Error(), fmt.Sprintf("%+v %#v", mistakes, mistakes)} {
				if strings.Contains(form, value) {
					t.Errorf("the error shows the credential: %s", form)
				}
			}
		})
	}
}

func TestNoWayOfPrintingAConfigShowsACredential(t *testing.T) {
	cfg := load(t, with("secret_id: hunter2"))
	if printed := fmt.Sprintf("%v %+v %#v", cfg, *cfg, *cfg); strings.Contains(printed, "hunter2") {
		t.Errorf("printed %s", printed)
	}
}

func TestEnvironmentDescribesOneConnection(t *testing.T) {
	cfg, err := config.FromEnv(env(map[string]string{
		"VAULT_ADDR": "https://vault:8200/", "VAULT_NAMESPACE": "team/", "VAULT_CACERT": "/ca.pem",
		"VAULT_ROLE_ID": "role", "VAULT_SECRET_ID_FILE": "/secret", "VAULT_SECRET_ID": "",
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := cfg.Connections[0]
	if len(cfg.Connections) != 1 || c.Name != "default" || c.Scope != server.ScopePlatform ||
		c.Vault.Address != "https://vault:8200" ||
		c.Vault.Namespace != "team" || c.Vault.TLS.CAFile != "/ca.pem" ||
		c.Vault.RoleID.Value.Reveal() != "role" || c.Vault.SecretID.File != "/secret" ||
		!c.Required || c.Vault.AuthMount != "approle" ||
		cfg.Socket.Path != config.DefaultSocketPath || cfg.Callers != nil {
		t.Errorf("config %+v", cfg)
	}
}

func TestEnvironmentNamesTheVariablesToPutRight(t *testing.T) {
	if _, err := config.FromEnv(env(map[string]string{"VAULT_ROLE_ID": "x"})); !errors.Is(err,
		config.ErrNoEnvironment) {
		t.Errorf("without VAULT_ADDR: %v", err)
	}
	_, err := config.FromEnv(env(map[string]string{"VAULT_ADDR": "https://va\tult",
		"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": "s"}))
	if err == nil || err.Error() != "VAULT_ADDR: holds a line break or another control character: remove it" {
		t.Errorf("a tab in the address: %v", err)
	}
	_, err = config.FromEnv(env(map[string]string{
		"VAULT_ADDR": "https://u:hunter2@vault", "VAULT_SECRET_ID": "hunter2", "VAULT_SECRET_ID_FILE": "hunter2", "VAULT_NAMESPACE": "hunter2\nx",
	}))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"VAULT_ADDR: must not hold a user",
		"VAULT_ROLE_ID: is not set: set it or VAULT_ROLE_ID_FILE",
		"VAULT_SECRET_ID: is set, and VAULT_SECRET_ID_FILE too", "VAULT_NAMESPACE: holds"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows the value: %v", err)
	}
}

func TestCheckReportsFilesThatCannotBeUsed(t *testing.T) {
	path := write(t, with("secret_id_file: absent",
		"tls: {ca_file: empty.pem, client_cert_file: empty.pem, client_key_file: empty.pem}",
		"timeout: 1"))
	if err := writeFile(filepath.Join(filepath.Dir(path), "empty.pem"), ""); err != nil {
		t.Fatal(err)
	}
	_, err := config.Check(path, noEnv)
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		"6:21: connections[0].secret_id_file: the file cannot be read: no such file or directory",
		"7:20: connections[0].tls.ca_file: the file holds no certificate",
		"7:49: connections[0].tls.client_cert_file: the file holds no certificate",
		"8:14: connections[0].timeout: has no unit",
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("got %v", err)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], path+":"+want[i]) {
			t.Errorf("line %d: %s\nwant %s", i, lines[i], want[i])
		}
	}
}

func TestLoadDoesNotLookAtTheFilesThatItNames(t *testing.T) {
	cfg := load(t, with("secret_id_file: /absent/secret_id"))
	mistakes := config.CheckFiles(cfg)
	if len(mistakes) != 1 || mistakes[0].Line != 6 ||
		mistakes[0].Path != "connections[0].secret_id_file" {
		t.Errorf("CheckFiles: %v", mistakes)
	}
}

func TestCheckFilesNamesTheVariableOfAFile(t *testing.T) {
	cfg, err := config.FromEnv(env(map[string]string{"VAULT_ADDR": "http://v", "VAULT_ROLE_ID": "r",
		"VAULT_SECRET_ID_FILE": "/absent/secret_id"}))
	if err != nil {
		t.Fatal(err)
	}
	if got := config.CheckFiles(cfg).Error(); !strings.HasPrefix(got,
		"VAULT_SECRET_ID_FILE: the file cannot be read: no such file or directory; create it") {
		t.Errorf("CheckFiles: %s", got)
	}
}
