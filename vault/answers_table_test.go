package vault

import (
	"strings"

	"github.com/secret-sidecar/secret-sidecar/internal/breaker"
)

// meaning is what an answer means for everybody whom it concerns.
type meaning struct {
	err error // what the caller gets; nil: what it asked for
	// reach is how far the failure reaches, and outcome what the breaker learns.
	reach   Reach
	outcome breaker.Outcome
	copy    copyRule
}

// copyRule is what becomes of the cached copy of a secret whose read was answered so.
type copyRule string

const (
	replaced copyRule = "is replaced"
	dropped  copyRule = "is dropped"
	kept     copyRule = "is kept, and not served in the place of the answer"
	stale    copyRule = "is kept, and may be served stale"
)

var (
	done         = meaning{nil, ReachNothing, breaker.Succeeded, replaced}
	sealed       = meaning{ErrSealed, ReachNode, breaker.FailedAll, stale}
	nodeOut      = meaning{ErrUnreachable, ReachNode, breaker.FailedAll, stale}
	pathOut      = meaning{ErrUnreachable, ReachPath, breaker.Failed, stale}
	limited      = meaning{ErrRateLimited, ReachPath, breaker.Failed, stale}
	nothing      = meaning{ErrNothing, ReachNothing, breaker.Succeeded, dropped}
	noMount      = meaning{ErrNotFound, ReachNothing, breaker.Succeeded, dropped}
	deleted      = meaning{ErrVersionDeleted, ReachNothing, breaker.Succeeded, dropped}
	destroyed    = meaning{ErrVersionDestroyed, ReachNothing, breaker.Succeeded, dropped}
	denied       = meaning{ErrPermissionDenied, ReachNothing, breaker.Succeeded, dropped}
	notVersioned = meaning{ErrNotKVv2, ReachNothing, breaker.Succeeded, dropped}
	badPath      = meaning{ErrInvalidPath, ReachNothing, breaker.Succeeded, kept}
	deadToken    = meaning{ErrInvalidToken, ReachNothing, breaker.Succeeded, kept}
	rejected     = meaning{ErrLoginRejected, ReachNothing, breaker.Succeeded, kept}
	notRenewable = meaning{ErrNotRenewable, ReachNothing, breaker.Succeeded, kept}
	notTold      = meaning{ErrNotAllowed, ReachNothing, breaker.Succeeded, kept}
)

// answerRow is one answer to some calls. The names are those of docs/vault-answers.md.
type answerRow struct {
	name   string
	calls  string // separated by blanks; see callsByName
	status int
	body   string
	means  meaning
	// fate is what a login has cost; zero is what follows from means: granted, rejected, or for an
	// outage not tried.
	fate LoginFate
	// hint is a part of the remedy.
	hint string
	// header is one "Name: value".
	header string
}

const (
	// vaultCalls are those that need a login, and the login; everyCall has sys/health as well.
	vaultCalls = "login renew revoke read mount mounts wrapping-lookup unwrap secret-id"
	everyCall  = vaultCalls + " health"
	// tokenCalls are those with our token.
	tokenCalls = "renew revoke read mount mounts secret-id"
)

// whole is an answer of Vault's with all that stands in each of them, but for what is in the parts.
func whole(parts string) string {
	body := `{"request_id":"c50fa2c9-b179-7cc6-e8d8-a46d3c1a15e1","lease_id":"","renewable":false,`
	for _, field := range []string{`"lease_duration":0`, `"data":null`, `"wrap_info":null`,
		`"warnings":null`, `"auth":null`} {
		if name, _, _ := strings.Cut(field, ":"); !strings.Contains(parts, name+":") {
			body += field + ","
		}
	}
	return body + parts + `,"mount_type":"kv"}` + "\n"
}

// says is an answer of Vault's with an error.
func says(text string) string {
	return `{"errors":["` + strings.NewReplacer(`"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(text) +
		`"]}` + "\n"
}

// one is how Vault writes the error of a policy or an engine.
func one(text string) string { return says("1 error occurred:\n\t* " + text + "\n\n") }

func metadata(version, deletion, gone string) string {
	return `"metadata":{"created_time":"2026-11-25T18:31:37.917394061Z","custom_metadata":null,"deletion_time":"` + deletion +
		`","destroyed":` + gone + `,"version":` + version + `}`
}

func grant(parts string) string {
	return whole(`"auth":{"client_token":"hvs.CAESIMDxTESTTESTTEST","accessor":"Z0FaqpafRP0BPbSlmVpCijqJ","policies":["app","default"],` +
		`"metadata":{"role_name":"app"},"lease_duration":3600,"renewable":true,"entity_id":"e1",` +
		parts + `}`)
}

func healthOf(parts string) string {
	return `{` + parts +
		`,"performance_standby":false,"replication_dr_mode":"disabled","server_time_utc":1795631512,"version":"1.21.2",` +
		`"enterprise":false,"cluster_name":"vault-cluster-7ec9c575"}`
}

func html(title string) string {
	return "<html>\r\n<head><title>" + title + "</title></head>\r\n<body><h1>" + title +
		"</h1></body>\r\n</html>\r\n"
}

const (
	badToken = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"
	apiLock  = `API access to this namespace has been locked by an administrator - "ns1/" must be unlocked to gain access.`
	wrapOnly = `{"request_id":"","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":{"token":"hvs.CAESIWRAP","ttl":60,` +
		`"creation_path":"secret/data/app/db"},"warnings":null,"auth":null,"mount_type":""}`
)

// answerRows is the table of what Vault 1.21, OpenBao 2.5, their standbys and proxies can answer:
// what was seen live on Vault 1.21.2, what its sources and OpenBao's say, and the default pages of
// proxies.
var answerRows = []answerRow{
	// Vault's and OpenBao's servers, whatever they are asked.
	{name: "sealed", calls: vaultCalls, status: 503, body: says("Vault is sealed"), means: sealed, hint: "unseal"},
	{name: "sealed-namespace", calls: vaultCalls, status: 503, body: says("Namespace is sealed"), means: sealed},
	{name: "sealed-at-token-check", calls: tokenCalls, status: 503, body: says("error performing token check: Vault is sealed"), means: sealed},
	{name: "sealing", calls: vaultCalls, status: 500, body: says("active context canceled after getting state lock"), means: nodeOut},
	{name: "standby-no-leader", calls: vaultCalls, status: 500, body: says("local node not active but active cluster node not found"), means: nodeOut, hint: "leader"},
	{name: "standby-no-active", calls: vaultCalls, status: 503, body: says("no active Vault instance found"), means: nodeOut},
	{name: "standby-without-ha", calls: vaultCalls, status: 503, body: says("node is not active"), means: nodeOut},
	{name: "standby-mode", calls: vaultCalls, status: 500, body: says("Vault is in standby mode"), means: nodeOut},
	{name: "standby-redirect", calls: everyCall, status: 307, header: "Location: https://vault-1.internal:8200/v1/x", means: nodeOut, hint: "HTTP 307"},
	{name: "standby-forwarding", calls: vaultCalls, status: 500, body: says("error during forwarding RPC request: rpc error: code = Unavailable"), means: nodeOut},
	{name: "removed-node", calls: vaultCalls, status: 500, body: says("error during forwarding RPC request: rpc error: code = FailedPrecondition desc = node is not in HA cluster membership"), means: nodeOut},
	{name: "no-cluster-leader", calls: vaultCalls, status: 500, body: says("Unexpected response code: 500 (No cluster leader)"), means: nodeOut},
	{name: "dr-secondary", calls: vaultCalls, status: 400, body: says("path disabled in replication DR secondary mode"), means: nodeOut, hint: "primary"},
	{name: "dr-secondary-old", calls: vaultCalls, status: 400, body: says("Path disabled in replication DR secondary mode"), means: nodeOut},
	{name: "dr-secondary-472", calls: vaultCalls, status: 472, body: says("x"), means: nodeOut},
	{name: "perf-standby-473", calls: vaultCalls, status: 473, body: says("x"), means: nodeOut},
	{name: "perf-standby-forward", calls: vaultCalls, status: 500, body: says("please forward to the active node"), means: nodeOut},
	{name: "perf-standby-rpc-400", calls: vaultCalls, status: 400, body: says("rpc error: code = DeadlineExceeded desc = context deadline exceeded"), means: nodeOut},
	{name: "perf-standby-rpc-500", calls: vaultCalls, status: 500, body: says("rpc error: code = Unavailable desc = transport is closing"), means: nodeOut},
	{name: "perf-standby-local-only", calls: "mount mounts", status: 400, body: says("cannot forward local-only request"), means: nodeOut},
	{name: "perf-standby-readonly", calls: vaultCalls, status: 500, body: one("cannot write to readonly storage"), means: nodeOut},
	{name: "perf-both-500", calls: vaultCalls, status: 500, body: says("errors from both primary and secondary; primary error was internal error; secondary errors follow: x"), means: nodeOut},
	{name: "perf-both-400", calls: vaultCalls, status: 400, body: says("errors from both primary and secondary; primary error was x; secondary errors follow: y"), means: nodeOut},
	{name: "perf-both-403", calls: vaultCalls, status: 403, body: says("errors from both primary and secondary; primary error was permission denied; secondary errors follow: y"), means: nodeOut},
	{name: "lagging", calls: vaultCalls, status: 412, body: says("required index state not present"), means: pathOut, hint: "lags"},
	{name: "agent-header", calls: everyCall, status: 412, body: says(`missing "X-Vault-Request" header`), means: pathOut, hint: "X-Vault-Request"},
	{name: "agent-upstream", calls: everyCall, status: 500, body: says(`failed to get the response: Put "https://vault:8200/v1/x": dial tcp 10.0.0.1:8200: connect: connection refused`), means: nodeOut, hint: "Agent"},
	{name: "overloaded-limiter", calls: vaultCalls, status: 503, body: says("Vault server temporarily overloaded"), means: pathOut, hint: "load"},
	{name: "overloaded-writes", calls: vaultCalls, status: 503, body: says("overloaded, try again later"), means: pathOut},
	{name: "overloaded-wrapped", calls: vaultCalls, status: 503, body: one("overloaded, try again later"), means: pathOut},
	{name: "api-lock", calls: vaultCalls, status: 503, body: one(apiLock), means: pathOut, hint: "unlock"},
	{name: "api-lock-openbao", calls: vaultCalls, status: 503, body: says(apiLock), means: pathOut, hint: "unlock"},
	{name: "rate-limit", calls: everyCall, status: 429, body: says(`request path "secret/data/app/db": rate limit quota exceeded`), means: limited, hint: "quota"},
	{name: "rate-limit-retry-after", calls: everyCall, status: 429, header: "Retry-After: 60", body: says(`request path "secret/data/app/db": rate limit quota exceeded`), means: limited},
	{name: "lease-count", calls: "login renew read", status: 429, body: one(`request path "auth/approle/login": lease count quota exceeded`), means: limited, hint: "lease count"},
	{name: "internal-error", calls: vaultCalls, status: 500, body: one("internal error"), means: pathOut, hint: "HTTP 500"},
	{name: "internal-error-plain", calls: vaultCalls, status: 500, body: says("internal error"), means: pathOut},
	{name: "storage-timeout", calls: vaultCalls, status: 500, body: one("context deadline exceeded"), means: pathOut},
	{name: "storage-canceled", calls: vaultCalls, status: 500, body: says("context canceled"), means: pathOut},
	{name: "storage-setup", calls: "login renew", status: 500, body: one("cannot write to storage during setup"), means: pathOut},
	{name: "upstream-rate-limited", calls: "login read", status: 502, body: one("upstream rate limited"), means: pathOut},
	{name: "token-check-failed", calls: tokenCalls, status: 500, body: says("error performing token check: failed to read entry: context deadline exceeded"), means: pathOut},
	{name: "recovery-mode", calls: everyCall, status: 404, body: "404 page not found\n", means: pathOut, fate: LoginLost, hint: "recovery"},
	{name: "listener-x-forwarded-for", calls: vaultCalls, status: 400, body: says("missing x-forwarded-for header and configured to reject when not present"), means: nodeOut, hint: "x_forwarded_for"},
	{name: "listener-x-forwarded-for-client", calls: vaultCalls, status: 400, body: says("client address not authorized for x-forwarded-for and configured to reject connection"), means: nodeOut},
	{name: "listener-too-large", calls: vaultCalls, status: 413, body: says("http: request body too large"), means: pathOut, hint: "max_request_size"},
	{name: "listener-tls", calls: everyCall, status: 400, body: "Client sent an HTTP request to an HTTPS server.\n", means: pathOut, hint: "https://"},
	{name: "licence", calls: "read", status: 400, body: says(`mounts of type "kv" aren't supported by license`), means: pathOut, hint: "licence"},
	{name: "namespace-gone-login", calls: "login", status: 404, body: says("namespace not found"), means: rejected, hint: "namespace"},
	{name: "namespace-gone-read", calls: "read", status: 404, body: says("namespace not found"), means: notVersioned, hint: "namespace"},
	{name: "namespace-gone-renew", calls: "renew", status: 404, body: says("namespace not found"), means: notRenewable},
	{name: "namespace-gone-unwrap", calls: "unwrap", status: 404, body: says("namespace not found"), means: rejected, hint: "namespace"},
	{name: "namespace-gone-aside", calls: "revoke mount mounts secret-id", status: 404, body: says("namespace not found"), means: notTold},
	{name: "wrap-only", calls: "renew read mount mounts wrapping-lookup unwrap secret-id", status: 200, body: wrapOnly, means: pathOut, hint: "X-Vault-Wrap-TTL"},

	// Tokens.
	{name: "token-dead-vault", calls: "renew read", status: 403, body: says(badToken), means: deadToken},
	{name: "token-dead-revoke", calls: "revoke", status: 403, body: says(badToken), means: done},
	{name: "token-dead-aside", calls: "mount mounts secret-id", status: 403, body: says(badToken), means: notTold},
	{name: "token-dead-openbao", calls: "renew read-again", status: 403, body: says("permission denied"), means: deadToken},
	{name: "token-bound-elsewhere", calls: "read", status: 403, body: says("permission denied"), means: denied, hint: "token_bound_cidrs"},
	{name: "token-plain-denial-aside", calls: "revoke mount mounts secret-id", status: 403, body: says("permission denied"), means: notTold},
	{name: "policy-denies-read", calls: "read read-again", status: 403, body: one("permission denied"), means: denied, hint: `policy with path "secret/data/app/db"`},
	{name: "policy-denies-renew", calls: "renew", status: 403, body: one("permission denied"), means: notRenewable, hint: "renew-self"},
	{name: "policy-denies-aside", calls: "revoke mount mounts secret-id", status: 403, body: one("permission denied"), means: notTold},
	{name: "no-namespaces-here", calls: "read", status: 403, body: says("namespaces feature not enabled"), means: denied},

	// Logins.
	{name: "login-ok", calls: "login", status: 200, body: grant(`"token_type":"service","num_uses":0`), means: done},
	{name: "login-batch", calls: "login", status: 200, body: grant(`"token_type":"batch"`), means: done},
	{name: "login-limited-uses", calls: "login", status: 200, body: grant(`"token_type":"service","num_uses":3`), means: rejected, hint: "token_num_uses"},
	{name: "login-mfa", calls: "login", status: 200, means: rejected, hint: "MFA",
		body: whole(`"warnings":["A login request was issued that is subject to MFA validation."],"auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"m1"}}`)},
	{name: "login-wrapped", calls: "login", status: 200, body: wrapOnly, means: rejected, hint: "X-Vault-Wrap-TTL"},
	{name: "login-nothing", calls: "login", status: 204, means: pathOut, fate: LoginLost},
	{name: "login-wrong-secret", calls: "login", status: 400, body: says("invalid role or secret ID"), means: rejected, hint: "check role_id and secret_id"},
	{name: "login-missing-secret", calls: "login", status: 400, body: says("missing secret_id"), means: rejected, hint: "wants a secret_id"},
	{name: "login-used-up-race", calls: "login", status: 400, body: says(`invalid secret_id "7cce9199-c3de-39e1-99be-62fad08ad53e"`), means: rejected},
	{name: "login-invalid-credentials", calls: "login", status: 400, body: says("invalid credentials"), means: rejected},
	{name: "login-unknown-text", calls: "login", status: 400, body: says("something new"), means: rejected},
	{name: "login-networks-role", calls: "login", status: 400, body: says(`source address "127.0.0.1" unauthorized by CIDR restrictions on the role: %!w(<nil>)`), means: rejected, hint: "networks"},
	{name: "login-networks-secret", calls: "login", status: 400, body: says(`source address "127.0.0.1" unauthorized through CIDR restrictions on the secret ID`), means: rejected, hint: "cidr_list"},
	{name: "login-networks-do-not-fit", calls: "login", status: 500, means: rejected, hint: "networks",
		body: says(`failed to verify subset relationship between CIDR blocks on the role ["10.0.0.0/8"] and CIDR blocks on the secret ID ["192.168.0.0/16"]: %!w(<nil>)`)},
	{name: "login-no-role-id", calls: "login", status: 500, body: says("failed to determine alias name from login request"), means: rejected},
	{name: "login-no-role-id-openbao", calls: "login", status: 500, body: says("missing role_id"), means: rejected},
	{name: "login-secret-too-long", calls: "login", status: 500, body: says("failed to create HMAC of secret_id: value is longer than maximum of 4096 bytes"), means: rejected},
	{name: "login-field-type", calls: "login", status: 500, body: says("Field validation failed: error converting input for field \"role_id\": '' expected type 'string'"), means: rejected},
	{name: "login-root-policy", calls: "login", status: 400, body: says("auth methods cannot create root tokens"), means: rejected, hint: "root"},
	{name: "login-locked-or-no-mount", calls: "login", status: 403, body: says("permission denied"), means: rejected, hint: "15 minutes"},
	{name: "login-no-mount-404", calls: "login", status: 404, body: says(`no handler for route "auth/approle/login". route entry not found.`), means: rejected, hint: "auth_mount"},
	{name: "login-other-method", calls: "login", status: 404, body: one("unsupported path"), means: rejected, hint: "auth_mount"},
	{name: "login-other-method-405", calls: "login", status: 405, body: one("unsupported operation"), means: rejected, hint: "auth_mount"},
	{name: "login-mount-moving", calls: "login", status: 404, body: says(`no handler for route "auth/approle/login". route entry is tainted.`), means: pathOut, hint: "wait"},
	{name: "login-mount-loading", calls: "login", status: 404, body: says(`no handler for route "auth/approle/login". route entry found, but backend is nil.`), means: pathOut},
	{name: "login-no-connection-info", calls: "login", status: 500, body: says("failed to get connection information"), means: pathOut},
	{name: "login-mfa-config", calls: "login", status: 500, body: says("failed to find MFAEnforcement configuration, error: internal error"), means: pathOut},
	{name: "login-redirects", calls: "login", status: 307, header: "Location: https://idp.example/login", means: nodeOut},

	// Renewals and revocations.
	{name: "renew-ok", calls: "renew", status: 200, body: grant(`"token_type":"service"`), means: done},
	{name: "renew-capped", calls: "renew", status: 200, means: done,
		body: whole(`"warnings":["TTL of \"1h0m0s\" exceeded the effective max_ttl of \"12s\"; TTL value is capped accordingly"],"auth":{"client_token":"hvs.x","lease_duration":1,"renewable":true}`)},
	{name: "renew-nothing", calls: "renew", status: 204, means: pathOut},
	{name: "renew-batch", calls: "renew", status: 400, body: says("batch tokens cannot be renewed"), means: notRenewable},
	{name: "renew-not-renewable", calls: "renew", status: 400, body: says("lease is not renewable"), means: notRenewable},
	{name: "renew-expired", calls: "renew", status: 400, body: says("lease expired"), means: deadToken},
	{name: "renew-lease-gone", calls: "renew", status: 400, body: says("invalid lease ID"), means: deadToken},
	{name: "renew-lease-not-found", calls: "renew", status: 400, body: says("lease not found"), means: deadToken},
	{name: "renew-token-gone", calls: "renew", status: 400, body: says("token not found"), means: deadToken},
	{name: "renew-irrevocable", calls: "renew", status: 400, body: says("lease is expired and has failed previous revocation attempts"), means: deadToken},
	{name: "renew-bad-token", calls: "renew", status: 403, body: says("bad token"), means: deadToken},
	{name: "renew-role-gone", calls: "renew", status: 500, body: one(`failed to renew entry: role "app" does not exist during renewal`), means: pathOut},
	{name: "renew-role-gone-odd-name", calls: "renew", status: 500, body: one(`failed to renew entry: role "standby-leader" does not exist during renewal`), means: pathOut},
	{name: "renew-storage", calls: "renew", status: 500, body: one("failed to persist lease entry: context deadline exceeded"), means: pathOut},
	{name: "renew-namespaces", calls: "renew", status: 500, body: one("cannot renew a token across namespaces"), means: pathOut},
	{name: "revoke-ok", calls: "revoke", status: 204, means: done},
	{name: "revoke-batch", calls: "revoke", status: 400, body: says("batch tokens cannot be revoked"), means: notTold},

	// Reads.
	{name: "kv-ok", calls: "read", status: 200, body: whole(`"data":{"data":{"k":"v3"},` + metadata("3", "", "false") + `}`), means: done},
	{name: "kv-no-keys", calls: "read", status: 200, body: whole(`"data":{"data":{},` + metadata("3", "", "false") + `}`), means: done},
	{name: "kv-null-data", calls: "read", status: 200, body: whole(`"data":{"data":null,` + metadata("3", "", "false") + `}`), means: done},
	{name: "kv-deleted-later", calls: "read", status: 200, body: whole(`"data":{"data":{"k":"v"},` + metadata("1", "2999-11-25T19:31:37.953289817Z", "false") + `}`), means: done},
	{name: "kv-never", calls: "read", status: 404, body: `{"errors":[]}` + "\n", means: nothing},
	{name: "kv-deleted", calls: "read", status: 404, body: whole(`"data":{"data":null,` + metadata("1", "2026-11-25T18:31:37.926061042Z", "false") + `}`), means: deleted},
	{name: "kv-deleted-by-a-clock-ahead", calls: "read", status: 404, body: whole(`"data":{"data":null,` + metadata("1", "2999-11-25T18:31:37.926061042Z", "false") + `}`), means: deleted},
	{name: "kv-destroyed", calls: "read", status: 404, body: whole(`"data":{"data":null,` + metadata("2", "", "true") + `}`), means: destroyed},
	{name: "kv-deleted-and-destroyed", calls: "read", status: 404, body: whole(`"data":{"data":null,` + metadata("2", "2026-11-25T18:31:37.926061042Z", "true") + `}`), means: destroyed},
	{name: "kv-not-below-data", calls: "read", status: 404, body: whole(`"warnings":["Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use."]`), means: notVersioned},
	{name: "kv-root", calls: "read", status: 404, body: whole(`"warnings":["Non-listing operations on the root of a K/V v2 mount are not supported."]`), means: notVersioned},
	{name: "kv-no-mount", calls: "read", status: 404, body: says(`no handler for route "nope/data/app/db". route entry not found.`), means: noMount, hint: "check the mount"},
	{name: "kv-no-mount-old", calls: "read", status: 404, body: says("no handler for route 'nope/data/app/db'"), means: noMount},
	{name: "kv-no-mount-odd-name", calls: "read", status: 404, body: says(`no handler for route "is tainted./data/backend is nil.". route entry not found.`), means: noMount},
	{name: "kv-mount-moving", calls: "read secret-id mount", status: 404, body: says(`no handler for route "secret/data/app/db". route entry is tainted.`), means: pathOut, hint: "wait"},
	{name: "kv-mount-moving-openbao", calls: "read", status: 404, body: says(`no handler for route "secret/data/app/db" on namespace "". route entry or namespace is tainted.`), means: pathOut},
	{name: "kv-mount-loading", calls: "read", status: 404, body: says(`no handler for route "secret/data/app/db". route entry found, but backend is nil.`), means: pathOut},
	{name: "kv-other-engine", calls: "read", status: 404, body: one("unsupported path"), means: notVersioned},
	{name: "kv-other-engine-405", calls: "read", status: 405, body: one("unsupported operation"), means: notVersioned},
	{name: "kv-upgrading", calls: "read", status: 400, means: pathOut, hint: "upgraded",
		body: says("Upgrading from non-versioned to versioned data. This backend will be " +
			"unavailable for a brief period and will resume service shortly.")},
	{name: "kv-upgrading-secondary", calls: "read", status: 400, means: pathOut,
		body: says("Waiting for the primary to upgrade from non-versioned to versioned data. " +
			"This backend will be unavailable for a brief period and will resume service when " +
			"the primary is finished.")},
	{name: "kv-not-printable", calls: "read", status: 400, means: badPath},
	{name: "kv-bad-version", calls: "read", status: 400, body: says(`Field validation failed: error converting input for field "version": cannot parse '' as int: strconv.ParseInt: parsing "abc": invalid syntax`), means: badPath},
	{name: "kv-relative-openbao", calls: "read", status: 400, body: says("relative paths not supported"), means: badPath},
	{name: "kv-bad-list", calls: "read", status: 400, body: `{"errors":[]}`, means: badPath},
	{name: "kv-version-data-missing", calls: "read", status: 500, body: one("could not find version data"), means: pathOut},
	{name: "kv-damaged", calls: "read", status: 500, body: one("failed to decode key metadata from storage: proto: cannot parse invalid wire-format data"), means: pathOut},
	{name: "kv-help", calls: "read", status: 200, body: `{"help":"Request:        data/a\nMatching Route: ^data/(?P\u003cpath\u003e.*?[^/]$)$\n\n","openapi":{"openapi":"3.0.2"},"see_also":null}`, means: pathOut},
	{name: "kv-nothing", calls: "read", status: 204, means: pathOut},
	{name: "kv-empty-data", calls: "read", status: 200, body: whole(`"data":null`), means: notVersioned},
	{name: "kv-data-is-text", calls: "read", status: 200, body: whole(`"data":{"data":"text","metadata":{}}`), means: notVersioned},
	{name: "kv1-miss", calls: "read", status: 404, body: `{"errors":[]}`, means: nothing},
	{name: "kv1-flat", calls: "read", status: 200, body: whole(`"lease_duration":2764800,"data":{"k":"v"}`), means: notVersioned},
	{name: "kv1-half-lookalike", calls: "read", status: 200, body: whole(`"lease_duration":2764800,"data":{"data":{"k":"v"}}`), means: notVersioned},
	{name: "kv1-lookalike", calls: "read", status: 200, body: whole(`"lease_duration":2764800,"data":{"data":{"k":"v"},"metadata":{"version":1}}`), means: notVersioned},
	{name: "kv1-key-called-error", calls: "read", status: 400, body: says("s3cret-value-of-kv1"), means: badPath},
	{name: "kv1-key-called-status", calls: "read", status: 500, header: "X-Vault-Raw-Error: raw responses cannot contain secrets or auth", means: pathOut},

	// Mounts, on the side.
	{name: "mount-ok", calls: "mount", status: 200, body: whole(`"data":{"path":"secret/","type":"kv","options":{"version":"2"}}`), means: done},
	{name: "mount-no-options", calls: "mount", status: 200, body: whole(`"data":{"path":"kv1/","type":"kv","options":null}`), means: done},
	{name: "mount-denied-or-none", calls: "mount", status: 403, body: says(`preflight capability check returned 403, please ensure client's policies grant access to path "secret/data/app/db/"`), means: notTold},
	{name: "mount-odd-name", calls: "mount", status: 403, body: says(`preflight capability check returned 403, please ensure client's policies grant access to path "error validating wrapping token/"`), means: notTold},
	{name: "mount-path-not-set", calls: "mount", status: 400, body: says("path not set"), means: notTold},
	{name: "mount-not-printable", calls: "mount", status: 400, means: notTold},
	{name: "mounts-ok", calls: "mounts", status: 200, body: whole(`"secret/":{"type":"kv"},"data":{"secret/":{"type":"kv","options":{"version":"2"}},"kv1/":{"type":"kv","options":null}}`), means: done},

	// Wrapping tokens, and the secret_id's lookup.
	{name: "wrapping-ok", calls: "wrapping-lookup", status: 200, body: whole(`"data":{"creation_path":"auth/approle/role/app/secret-id","creation_ttl":300}`), means: done},
	{name: "wrapping-of-something-else", calls: "wrapping-lookup", status: 200, body: whole(`"data":{"creation_path":"secret/data/app","creation_ttl":300}`), means: rejected, hint: "attack"},
	{name: "wrapping-spent", calls: "wrapping-lookup unwrap", status: 400, body: says("wrapping token is not valid or does not exist"), means: rejected, hint: "already used"},
	{name: "wrapping-no-information", calls: "wrapping-lookup unwrap", status: 400, body: says("no information found; wrapping token may be from a previous Vault version"), means: rejected, hint: "already used"},
	{name: "wrapping-fault-as-403", calls: "wrapping-lookup unwrap", status: 403, body: says("error validating wrapping token: context canceled"), means: nodeOut, hint: "wrapping token"},
	{name: "wrapping-sealed-as-403", calls: "wrapping-lookup unwrap", status: 403, body: says("error validating wrapping token: Vault is sealed"), means: nodeOut},
	{name: "wrapping-lag-as-403", calls: "wrapping-lookup unwrap", status: 403, body: says("error validating wrapping token: required index state not present"), means: nodeOut},
	{name: "wrapping-lookup-refused", calls: "wrapping-lookup", status: 403, body: one("permission denied"), means: done},
	{name: "wrapping-lookup-nothing", calls: "wrapping-lookup", status: 204, means: done},
	{name: "unwrap-ok", calls: "unwrap", status: 200, body: whole(`"data":{"secret_id":"7cce9199-c3de-39e1-99be-62fad08ad53e","secret_id_accessor":"b3ddef01","secret_id_num_uses":0,"secret_id_ttl":0}`), means: done},
	{name: "unwrap-vanished", calls: "unwrap", status: 204, means: rejected, hint: "already used"},
	{name: "unwrap-refused", calls: "unwrap", status: 403, body: one("permission denied"), means: rejected, hint: "namespace"},
	{name: "unwrap-unknown-text", calls: "unwrap", status: 400, body: says("something new"), means: rejected, hint: "namespace"},
	{name: "unwrap-of-a-deleted-version", calls: "unwrap", status: 404, body: whole(`"data":{"data":null,` + metadata("1", "2026-11-25T18:31:37.926061042Z", "false") + `}`), means: rejected, hint: "holds no secret_id"},
	{name: "unwrap-of-a-secret", calls: "unwrap", status: 200, body: whole(`"data":{"data":{"k":"v"},` + metadata("1", "", "false") + `}`), means: rejected, hint: "holds no secret_id"},
	{name: "unwrap-use-count", calls: "unwrap", status: 500, body: one("error decrementing wrapping token's use-count: invalid token entry provided for use count decrementing"), means: pathOut},
	{name: "unwrap-empty-cubbyhole", calls: "unwrap", status: 500, body: one("no response found inside the cubbyhole"), means: pathOut},
	{name: "unwrap-no-information-500", calls: "unwrap", status: 500, body: says("no information found; wrapping token may be from a previous Vault version"), means: pathOut},
	{name: "secret-id-ok", calls: "secret-id", status: 200, body: whole(`"data":{"cidr_list":[],"expiration_time":"0001-01-01T00:00:00Z","secret_id_num_uses":0}`), means: done},
	{name: "secret-id-unknown", calls: "secret-id", status: 204, means: notTold},
	{name: "secret-id-no-role", calls: "secret-id", status: 500, body: one(`role "app" does not exist`), means: pathOut},
	{name: "secret-id-dangling", calls: "secret-id", status: 400, body: says("invalid secret id"), means: notTold},

	// sys/health. What a node says of itself in the body counts, whatever a proxy has made of the
	// parameters.
	{name: "health-active", calls: "health", status: 200, body: healthOf(`"initialized":true,"sealed":false,"standby":false`), means: done},
	{name: "health-standby", calls: "health", status: 200, body: healthOf(`"initialized":true,"sealed":false,"standby":true`), means: done},
	{name: "health-standby-429", calls: "health", status: 429, body: healthOf(`"initialized":true,"sealed":false,"standby":true`), means: done},
	{name: "health-perf-standby-473", calls: "health", status: 473, body: healthOf(`"initialized":true,"sealed":false,"standby":true`), means: done},
	{name: "health-other-status", calls: "health", status: 299, body: healthOf(`"initialized":true,"sealed":false,"standby":false`), means: done},
	{name: "health-dr-472", calls: "health", status: 472, body: healthOf(`"initialized":true,"sealed":false,"standby":false`), means: nodeOut, hint: "primary"},
	{name: "health-leaderless-474", calls: "health", status: 474, body: healthOf(`"initialized":true,"sealed":false,"standby":true`), means: nodeOut, hint: "leader"},
	{name: "health-removed-530", calls: "health", status: 530, body: healthOf(`"initialized":true,"sealed":true,"standby":true`), means: nodeOut},
	{name: "health-sealed", calls: "health", status: 200, body: healthOf(`"initialized":true,"sealed":true,"standby":true`), means: sealed},
	{name: "health-sealed-503", calls: "health", status: 503, body: healthOf(`"initialized":true,"sealed":true,"standby":true`), means: sealed, hint: "unseal"},
	{name: "health-uninitialised-501", calls: "health", status: 501, body: healthOf(`"initialized":false,"sealed":true,"standby":true`), means: sealed},
	{name: "health-no-answer-500", calls: "health", status: 500, body: `{"errors":[]}`, means: pathOut},
	{name: "health-in-namespace-openbao", calls: "health", status: 400, body: says("operation unavailable in namespaces"), means: nodeOut},

	// Proxies, gateways, meshes and load balancers.
	{name: "proxy-400", calls: everyCall, status: 400, body: html("400 Bad Request"), means: pathOut, fate: LoginRejected, hint: "HTTP 400"},
	{name: "proxy-400-empty", calls: "login renew revoke wrapping-lookup unwrap secret-id health", status: 400, means: pathOut, fate: LoginRejected},
	{name: "proxy-400-tls", calls: everyCall, status: 400, body: html("400 The plain HTTP request was sent to HTTPS port"), means: pathOut, hint: "https://"},
	{name: "proxy-400-certificate", calls: everyCall, status: 400, body: html("400 No required SSL certificate was sent"), means: pathOut, hint: "client_cert_file"},
	{name: "proxy-401", calls: everyCall, status: 401, body: html("401 Authorization Required"), means: pathOut, fate: LoginLost, hint: "HTTP 401"},
	{name: "proxy-401-like-vault", calls: everyCall, status: 401, body: says("unauthorized"), means: pathOut, fate: LoginLost},
	{name: "proxy-403", calls: everyCall, status: 403, body: html("403 Forbidden"), means: pathOut, fate: LoginRejected, hint: "HTTP 403"},
	{name: "proxy-403-text", calls: everyCall, status: 403, body: "RBAC: access denied", means: pathOut, fate: LoginRejected, hint: "gateway"},
	{name: "proxy-403-empty", calls: everyCall, status: 403, means: pathOut, fate: LoginRejected},
	{name: "proxy-404", calls: everyCall, status: 404, body: html("404 Not Found"), means: pathOut, fate: LoginLost, hint: "HTTP 404"},
	{name: "proxy-404-text", calls: everyCall, status: 404, body: "default backend - 404", means: pathOut, fate: LoginLost},
	{name: "proxy-404-empty", calls: everyCall, status: 404, means: pathOut, fate: LoginLost},
	{name: "proxy-405", calls: everyCall, status: 405, body: html("405 Not Allowed"), means: pathOut, fate: LoginLost},
	{name: "proxy-407", calls: everyCall, status: 407, body: html("ERROR: Cache Access Denied"), means: pathOut, hint: "HTTP 407"},
	{name: "proxy-408", calls: everyCall, status: 408, body: "stream timeout", means: pathOut, fate: LoginLost},
	{name: "proxy-413", calls: everyCall, status: 413, body: html("413 Request Entity Too Large"), means: pathOut, fate: LoginLost},
	{name: "proxy-414", calls: everyCall, status: 414, body: html("414 Request-URI Too Large"), means: pathOut, fate: LoginLost},
	{name: "proxy-421", calls: everyCall, status: 421, means: pathOut, fate: LoginLost},
	{name: "proxy-429", calls: everyCall, status: 429, body: html("429 Too Many Requests"), means: limited, fate: LoginLost, hint: "gateway"},
	{name: "proxy-429-json", calls: everyCall, status: 429, body: `{"message":"API rate limit exceeded"}`, means: limited, fate: LoginLost, hint: "HTTP 429"},
	{name: "proxy-429-retry-after", calls: everyCall, status: 429, header: "Retry-After: 30", body: "error code: 1015", means: limited, fate: LoginLost},
	{name: "proxy-431", calls: everyCall, status: 431, means: pathOut, fate: LoginLost},
	{name: "proxy-460", calls: everyCall, status: 460, body: html("460 460"), means: pathOut, fate: LoginLost},
	{name: "proxy-500", calls: everyCall, status: 500, body: html("500 Internal Server Error"), means: pathOut, fate: LoginLost, hint: "gateway"},
	{name: "proxy-500-empty", calls: everyCall, status: 500, means: pathOut, fate: LoginLost},
	{name: "proxy-502", calls: everyCall, status: 502, body: html("502 Bad Gateway"), means: pathOut, fate: LoginLost, hint: "HTTP 502"},
	{name: "proxy-503", calls: everyCall, status: 503, body: "upstream connect error or disconnect/reset before headers. reset reason: connection termination", means: pathOut, fate: LoginLost, hint: "mesh"},
	{name: "proxy-503-sealed-html", calls: everyCall, status: 503, body: "<html><body>Vault is sealed</body></html>", means: pathOut, fate: LoginLost},
	{name: "proxy-503-sealed-something", calls: vaultCalls, status: 503, body: says("sealed secrets controller not ready"), means: pathOut},
	{name: "proxy-503-not-initialised-something", calls: vaultCalls, status: 503, body: says("the plugin is not initialized"), means: pathOut},
	{name: "proxy-504", calls: everyCall, status: 504, body: "upstream request timeout", means: pathOut, fate: LoginLost},
	{name: "proxy-520", calls: everyCall, status: 520, body: "error code: 520", means: pathOut, fate: LoginLost},
	{name: "proxy-530", calls: everyCall, status: 530, body: "error code: 530", means: pathOut, fate: LoginLost},
	{name: "proxy-561", calls: everyCall, status: 561, body: html("561 561"), means: pathOut, fate: LoginLost},
	{name: "proxy-302", calls: everyCall, status: 302, header: "Location: https://sso.example/oauth2/start?rd=/v1/x", means: nodeOut, hint: "HTTP 302"},
	{name: "proxy-304", calls: everyCall, status: 304, means: nodeOut},
	{name: "proxy-200-html", calls: everyCall, status: 200, body: "<!doctype html><html><body>Sign in</body></html>", means: pathOut, fate: LoginLost, hint: "gateway"},
	{name: "proxy-200-empty", calls: everyCall, status: 200, means: pathOut, fate: LoginLost},
	{name: "proxy-200-cut-off", calls: everyCall, status: 200, body: `{"request_id":"x","data":{"data":{"k":"v`, means: pathOut, fate: LoginLost},
	{name: "proxy-200-list", calls: everyCall, status: 200, body: `[]`, means: pathOut, fate: LoginLost},
	{name: "proxy-200-json", calls: everyCall, status: 200, body: `{"message":"hello","request_id":"0a"}`, means: pathOut, fate: LoginLost},
	{name: "proxy-204", calls: "login renew read mount mounts health", status: 204, means: pathOut, fate: LoginLost},
	{name: "gateway-403", calls: everyCall, status: 403, body: `{"message":"Missing Authentication Token"}`, means: pathOut, fate: LoginRejected},
	{name: "gateway-404", calls: everyCall, status: 404, body: `{"message":"no Route matched with those values","request_id":"0a"}`, means: pathOut, fate: LoginLost},
	{name: "gateway-404-spring", calls: everyCall, status: 404, body: `{"timestamp":"2026-11-25T18:00:00.000+00:00","path":"/v1/secret/data/a","status":404,"error":"Not Found"}`, means: pathOut, fate: LoginLost},
	{name: "gateway-404-graphql", calls: everyCall, status: 404, body: `{"errors":[{"message":"not found"}]}`, means: pathOut, fate: LoginLost},
	{name: "gateway-404-kubernetes", calls: everyCall, status: 404, body: `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"NotFound","code":404}`, means: pathOut, fate: LoginLost},
	{name: "gateway-404-data-null", calls: everyCall, status: 404, body: `{"data":null}`, means: pathOut, fate: LoginLost},
	{name: "gateway-404-data", calls: everyCall, status: 404, body: `{"data":{"message":"not found"}}`, means: pathOut, fate: LoginLost},
	{name: "gateway-404-errors-null", calls: everyCall, status: 404, body: `{"errors":null}`, means: pathOut, fate: LoginLost},
	{name: "gateway-404-errors-object", calls: everyCall, status: 404, body: `{"errors":{}}`, means: pathOut, fate: LoginLost},
	{name: "gateway-404-object", calls: everyCall, status: 404, body: `{}`, means: pathOut, fate: LoginLost},
	{name: "gateway-418", calls: everyCall, status: 418, body: `{"errors":[]}`, means: pathOut, fate: LoginLost},
	{name: "gateway-503", calls: everyCall, status: 503, body: `{"message":"failure to get a peer from the ring-balancer"}`, means: pathOut, fate: LoginLost, hint: "gateway"},
	{name: "gateway-503-like-vault", calls: everyCall, status: 503, body: says("service unavailable"), means: pathOut},
}
