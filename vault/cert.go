package vault

import "net/http"

// noCertificate is what the cert method says to a connection without a client certificate.
var noCertificate = []string{"client certificate must be supplied", "no client certificate found", "tls connection"}

func whyRejectedByCert(who Identity, ans *answer) string {
	at := "auth/" + who.Mount
	switch {
	case ans.mentions(noCertificate...):
		return "Vault has seen no client certificate: set tls.client_cert_file; a proxy or load balancer that ends TLS in front of Vault hides it"
	case ans.mentions("has expired or is not yet valid"):
		return "the client certificate has expired or is not yet valid: renew tls.client_cert_file, or set the clocks of its issuer and of Vault by NTP"
	case ans.mentions("key usage"):
		return "the client certificate is not meant for clients: issue it with the extended key usage clientAuth"
	case ans.mentions("failed to verify client's certificate"):
		return "Vault cannot verify the client certificate: issue it anew, and put the certificates between it and the CA behind it in the file"
	case ans.mentions("match all constraints", "certificate mismatch"):
		return "no role matches the client certificate: check auth.role against vault list " + at + "/certs, the CA in the role, and its " +
			"allowed_common_names, allowed_dns_sans and the like; or the certificate is revoked"
	case ans.mentions(otherMethod...), ans.endsIn("missing role"):
		return otherMethodRemedy(MethodCert)
	case ans.status == http.StatusForbidden:
		return noMountRemedy(MethodCert) + "; or the role's token_bound_cidrs leave the sidecar's network out"
	case ans.status == http.StatusBadRequest, ans.status >= 500:
		return "Vault does not accept the client certificate for the role: compare it with vault read " + at + "/certs/ROLE"
	}
	return noMountRemedy(MethodCert)
}
