package vault

import (
	"bytes"
	"net/http"
)

// outage returns the outage that an answer means, or nil when Vault works. No other code decides
// that; docs/vault-answers.md has the table. proxy is the environment's, empty without one.
func (a *answer) outage(doing string, kind CallKind, proxy string) error {
	out := a.classify(kind, proxy)
	if out == nil {
		return nil
	}
	out.Doing, out.Status = doing, a.status
	if out.Sentinel == nil {
		out.Sentinel = ErrUnreachable
	}
	out.RetryAfter = retryAfter(a.header)
	return out
}

func (a *answer) classify(kind CallKind, proxy string) *CallError {
	switch {
	case kind == CallProbe && a.body.Initialized != nil:
		return a.unwell()
	case a.status == http.StatusTooManyRequests:
		return a.limited(proxy)
	case isRedirect(a.status):
		return &CallError{Reach: ReachNode,
			Remedy: "the node that answered redirects to another one (HTTP " + a.code() +
				"), which is not " +
				"followed: after an election this passes by itself; if it stays, set the address to " +
				"Vault itself, with its scheme and port"}
	case a.broken:
		return a.notVaults(proxy)
	// Vault granted the login: it may have used up one of the secret_id's uses.
	case a.body.WrapInfo != nil && kind != CallLogin:
		return &CallError{Reach: ReachPath, Remedy: wrappedRemedy}
	case a.status >= 500, a.status == 472, a.status == 473, a.status == 474:
		return a.serverError(kind)
	case a.status >= 400:
		return a.passing()
	}
	return nil
}

const wrappedRemedy = "Vault wraps its answer, although nobody asked for it: stop the proxy in front " +
	"of Vault from adding X-Vault-Wrap-TTL"

// unwell returns the outage when sys/health describes a node that serves nobody, else nil. It looks
// at the body, not at the status: a proxy may drop the parameters that ask for 200, and then a
// standby answers 429.
func (a *answer) unwell() *CallError {
	switch a.status {
	case 472:
		return secondaryForRecovery()
	case 474, 530:
		return a.leaderless()
	}
	return nil
}

// limited is the outage when an answer asks for fewer requests.
func (a *answer) limited(proxy string) *CallError {
	out := &CallError{Sentinel: ErrRateLimited, Reach: ReachPath,
		Remedy: "wait, or raise the rate limit quota in Vault"}
	switch {
	case a.broken:
		out.Remedy = "wait, or raise the limit of the gateway or the load balancer in front of " +
			"Vault: it limits the requests (HTTP 429)"
		if proxy != "" {
			out.Remedy = "wait, or add Vault's host to NO_PROXY: the proxy of the environment, " +
				proxy + ", or a gateway behind it limits " +
				"the requests (HTTP 429)"
		}
	case a.mentions("lease count quota"):
		out.Remedy = "wait until leases end, or raise the lease count quota in Vault"
	}
	return out
}

// serverError returns the outage when Vault itself cannot do what it was asked. It returns nil for
// a login that Vault will never accept.
func (a *answer) serverError(kind CallKind) *CallError {
	switch {
	case a.status == http.StatusServiceUnavailable && a.saysSealed():
		return &CallError{Sentinel: ErrSealed, Reach: ReachNode,
			Remedy: "unseal Vault: vault operator unseal"}
	case kind == CallLogin && a.mentions(hopelessLogins...):
		return nil
	case a.status == 472:
		return secondaryForRecovery()
	case a.says("failed to get the response"):
		return &CallError{Reach: ReachNode,
			Remedy: "the Vault Agent or Vault Proxy at the address does not reach Vault: look " +
				"into its log"}
	case a.status == 473, a.status == 474, a.mentions(leaderlessTexts...):
		return a.leaderless()
	case a.mentions("overloaded"):
		return &CallError{Reach: ReachPath,
			Remedy: "Vault is overloaded (HTTP " + a.code() + "): wait, and look at its load"}
	case a.mentions("locked by an administrator"):
		return &CallError{Reach: ReachPath,
			Remedy: "an administrator has locked the API of the namespace: vault namespace unlock"}
	}
	return &CallError{Reach: ReachPath,
		Remedy: "Vault answers with an error of its own (HTTP " + a.code() +
			"): look into Vault's log"}
}

// leaderlessTexts come from a node that steps down or cannot forward a request to the leader. None
// of them can be part of a role's or mount's name, which some errors quote.
var leaderlessTexts = []string{"node not active", "node is not active", "no active Vault instance",
	"in standby mode", "o cluster leader",
	"active context canceled", "forward to the active node", "in HA cluster membership",
	"error during forwarding", "rpc error: ",
	"write to readonly storage", "errors from both primary and secondary"}

// hopelessLogins are texts of a 500 by which Vault refuses credentials or a role for good.
var hopelessLogins = []string{"failed to determine alias name", "missing role_id",
	"failed to create HMAC", cidrBlocks, "Field validation failed"}

// cidrBlocks is part of a 500: the secret_id's networks are not a subset of its role's.
const cidrBlocks = "CIDR blocks on the role"

func (a *answer) leaderless() *CallError {
	return &CallError{Reach: ReachNode,
		Remedy: "the node of Vault that answers does not lead, and reaches no leader (HTTP " +
			a.code() +
			"): wait for the election, and look at the state of the cluster: vault operator raft " +
			"list-peers"}
}

func secondaryForRecovery() *CallError {
	return &CallError{Reach: ReachNode,
		Remedy: "the Vault that answers is a secondary for disaster recovery, or in recovery " +
			"mode, and serves " +
			"nobody: send requests to the primary, or promote it"}
}

// saysSealed reports whether Vault itself says that it, or the namespace, is sealed or not
// initialised.
func (a *answer) saysSealed() bool {
	return a.mentions("Vault is sealed", "Namespace is sealed", "Vault is not initialized") ||
		a.body.Initialized != nil && (a.body.Sealed || !*a.body.Initialized)
}

// passing returns the outage when Vault refuses a good request because of its own state or set-up,
// else nil.
func (a *answer) passing() *CallError {
	switch {
	case a.says("errors from both primary and secondary"):
		return a.leaderless()
	case a.lags():
		return &CallError{Reach: ReachPath,
			Remedy: "the node of Vault that answers lags behind the others (HTTP 412): wait, and " +
				"look at its replication"}
	}
	switch a.status {
	case http.StatusBadRequest:
		return a.passingBadRequest()
	case http.StatusForbidden:
		// Whatever the fault is, the token may be good.
		if a.says("error validating wrapping token") {
			return &CallError{Reach: ReachNode,
				Remedy: "Vault cannot look at the wrapping token now: look into Vault's log"}
		}
	case http.StatusNotFound:
		if a.endsIn("is tainted.", "backend is nil.") {
			return &CallError{Reach: ReachPath,
				Remedy: "Vault is moving, disabling or loading the engine that is mounted there " +
					"(HTTP 404): wait; if it stays, look into Vault's log"}
		}
	case http.StatusPreconditionFailed:
		return &CallError{Reach: ReachPath,
			Remedy: "the Vault Agent or Vault Proxy at the address wants the header " +
				"X-Vault-Request (HTTP 412), which the sidecar sends: stop the proxy in " +
				"between from dropping it"}
	case http.StatusRequestEntityTooLarge:
		return &CallError{Reach: ReachPath,
			Remedy: "Vault's listener refuses a request of this size (HTTP 413): raise its " +
				"max_request_size"}
	}
	return nil
}

// lags reports whether the node has not yet received what another one has written.
func (a *answer) lags() bool {
	return a.status == http.StatusPreconditionFailed && !a.broken && !a.mentions("X-Vault-Request")
}

func (a *answer) passingBadRequest() *CallError {
	switch {
	case a.mentions("ersioned data", "pgrading from non-versioned"):
		// On the primary and on a secondary: "Upgrading from non-versioned to versioned data. …",
		// "Waiting for the primary to upgrade from non-versioned to versioned data. …".
		return &CallError{Reach: ReachPath,
			Remedy: "wait until Vault has upgraded the mount to version 2"}
	case a.mentions("disabled in replication", "DR secondary", "ecovery mode"):
		return secondaryForRecovery()
	case a.says("rpc error", "cannot forward"):
		return a.leaderless()
	case a.mentions("x-forwarded-for"):
		return &CallError{Reach: ReachNode,
			Remedy: "Vault's listener does not trust what forwards to it: look at the listener's " +
				"x_forwarded_for_* settings " +
				"and at the load balancer"}
	case a.mentions("supported by license"):
		return &CallError{Reach: ReachPath,
			Remedy: "Vault's licence does not allow the engine: look at the licence"}
	}
	return nil
}

// notVaults says what to do about an answer that does not come from Vault.
func (a *answer) notVaults(proxy string) *CallError {
	out := &CallError{Reach: ReachPath}
	who := "a gateway, a mesh or a load balancer in front of Vault answers"
	if proxy != "" {
		who = "the proxy of the environment, " + proxy + ", or a gateway behind it answers"
	}
	switch {
	case a.wantsTLS():
		out.Remedy = "the server speaks TLS: write the address with https://"
	case a.wantsCertificate():
		out.Remedy = "the server wants a client certificate: set tls.client_cert_file and " +
			"tls.client_key_file"
	case a.status == http.StatusProxyAuthRequired && proxy != "":
		out.Remedy = "the proxy " + proxy +
			" wants credentials (HTTP 407): put them into HTTPS_PROXY, or add Vault's host to " +
			"NO_PROXY"
	case a.status >= 500:
		out.Remedy = who + " in its place (HTTP " + a.code() +
			"): look at that, and whether it reaches Vault"
	case proxy != "" && a.status >= 400:
		out.Remedy = who + " (HTTP " + a.code() + "): let it pass, or add Vault's host to NO_PROXY"
	case a.status == http.StatusNotFound && string(bytes.TrimSpace(a.text)) == "404 page not found":
		out.Remedy = "what answers at the address is not Vault, a proxy in front of it, or a " +
			"Vault in recovery mode (HTTP 404): check the address, and " +
			"start Vault without -recovery"
	default:
		out.Remedy = "what answers at the address is not Vault, or a gateway or a proxy in front " +
			"of it (HTTP " + a.code() + "): check the address and " +
			"the gateway"
	}
	return out
}

// wantsTLS and wantsCertificate are phrases of Go's and nginx's pages that refuse a connection
// before they look at the request.
func (a *answer) wantsTLS() bool {
	return a.status == http.StatusBadRequest &&
		(bytes.Contains(a.text, []byte("HTTP request to an HTTPS server")) ||
			bytes.Contains(a.text, []byte("plain HTTP request was sent to HTTPS port")))
}

func (a *answer) wantsCertificate() bool {
	return a.status == http.StatusBadRequest && a.broken &&
		bytes.Contains(a.text, []byte("SSL certificate"))
}
