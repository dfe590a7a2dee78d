package config

import (
	"regexp"
	"slices"
	"strings"
)

// slip is a key that people write from habit, often from another tool's configuration, and what to
// write instead.
type slip struct {
	at   string // the path of the mapping, without the numbers
	keys string // separated by spaces
	// means is a key that does not count as missing beside the slip; empty for none.
	means string
	hint  string
}

// Hints that several keys share.
const (
	byAppRole   = "the sidecar logs in by AppRole: give role_id and secret_id_file"
	verified    = "certificates are always verified: name the authority in tls: {ca_file: …}"
	unixSocket  = "the sidecar listens on a Unix socket alone: write socket: {path: …}"
	perRequest  = "a request names the mount and the path of its secret: remove the key, or write paths: [secret/data/**] for all that may be read"
	policyWords = "ttl max_stale negative_ttl refresh_ahead"
	sizeWords   = "max_bytes size max_size max_memory bytes"
)

var slips = []slip{
	{"", "listen host port address socket_path", "", unixSocket},
	{"", "path mode group", "", "write it under socket: socket: {path: …, mode: …, group: …}"},
	{"", "vault", "", "write each Vault as an entry of connections"},
	{"", "timeout", "", "write it under defaults: defaults: {timeout: 10s}"},
	{"", policyWords, "", "write it under defaults: defaults: {cache: {ttl: 1h}}"},
	{"", "max_bytes", "", "write it under cache: cache: {max_bytes: 64MiB}"},
	{"", "level log_level loglevel", "", "write it under log: log: {level: info}"},
	{"", "log_format", "", "it is a flag: serve --log-format json"},
	{"", "metrics telemetry otel tracing prometheus", "",
		"metrics and traces are configured by the OTEL_* variables: remove the key"},
	{"", "token vault_token", "", byAppRole},

	{"socket", "permissions permission perm perms chmod", "", "write mode: \"0660\""},
	{"socket", "listen address file socket_path", "",
		"write path: /run/secret-sidecar/sidecar.sock"},
	{"socket", "host port", "", "the sidecar listens on a Unix socket alone: write path"},
	{"socket", "owner user uid", "",
		"the socket belongs to the sidecar's own user: let others in by group and mode"},
	{"socket", "gid", "", "write group, with a name or a number"},

	{"callers[]", "user username user_name name login", "uid",
		"callers go by uid: run id -u NAME, and write uid with the number that it prints"},
	{"callers[]", "groupname group_name group", "gid",
		"callers go by gid: run getent group NAME, and write gid with the number that it prints"},
	{"callers[]", "pid process exe", "", "callers go by uid and gid: write one of them or both"},
	{"callers[]", "project project_id project_ids", "", "write projects: [p1, p2]"},

	{"connections[]", "token vault_token root_token token_file username user password", "",
		byAppRole},
	{"connections[]", "policies policy token_policies", "",
		"the policies are those of the role in Vault: remove the key"},
	{"connections[]", "url uri addr host server endpoint vault_addr vault_address", "address",
		"write address: https://vault.example:8200"},
	{"connections[]", "mount mount_path auth_path approle_path approle_mount", "",
		"write auth_mount for the mount of AppRole; a request names the mount of its secret"},
	{"connections[]", "role role_name approle", "role_id",
		"write role_id, with what vault read -field=role_id auth/approle/role/NAME/role-id prints"},
	{"connections[]", "role_id_path", "role_id_file", "write role_id_file"},
	{"connections[]", "secret secret_file secret_path secret_id_path", "secret_id_file",
		"write secret_id_file"},
	{"connections[]", "wrapped", "", "write secret_id_wrapped"},
	{"connections[]",
		"ca ca_file ca_cert cacert ca_pem vault_cacert server_name client_cert_file client_key_file", "",
		"write it under tls: tls: {ca_file: …, server_name: …, client_cert_file: …, " +
			"client_key_file: …}"},
	{"connections[]", "insecure skip_verify tls_skip_verify insecure_skip_verify verify", "",
		verified},
	{"connections[]", "project project_id projects", "",
		"write project_ids: [p1, p2], and scope: project"},
	{"connections[]", "path prefix kv_version engine secrets", "", perRequest},
	{"connections[]", policyWords, "", "write it under cache: cache: {ttl: 1h}"},
	{"connections[]", sizeWords, "",
		"the size is that of all connections together: write cache: {max_bytes: 64MiB} at the top"},

	{"connections[].tls", "ca ca_cert cacert ca_pem ca_path", "", "write ca_file"},
	{"connections[].tls", "cert cert_file client_cert crt", "", "write client_cert_file"},
	{"connections[].tls", "key key_file client_key", "", "write client_key_file"},
	{"connections[].tls", "sni tls_server_name", "", "write server_name"},
	{"connections[].tls",
		"insecure skip_verify tls_skip_verify insecure_skip_verify verify enabled", "", verified},

	{"cache", policyWords, "",
		"write it under defaults: defaults: {cache: {ttl: 1h}}, or under a connection's cache"},
	{"cache", "size max_size max_memory bytes", "", "write max_bytes: 64MiB"},
	{"defaults", policyWords, "", "write it under cache: defaults: {cache: {ttl: 1h}}"},
	{"defaults.cache", sizeWords, "", "write cache: {max_bytes: 64MiB} at the top"},
	{"connections[].cache", sizeWords, "",
		"the size is that of all connections together: write cache: {max_bytes: 64MiB} at the top"},
	{"connections[].cache", "stale stale_ttl", "", "write max_stale"},
}

var listNumber = regexp.MustCompile(`\[\d+\]`)

// slipAt returns the slip for a key in the mapping at path; the zero slip means none.
func slipAt(path, key string) slip {
	at := listNumber.ReplaceAllString(path, "[]")
	for _, s := range slips {
		if s.at == at && slices.Contains(strings.Fields(s.keys), strings.ToLower(key)) {
			return s
		}
	}
	return slip{}
}
