package vault

import (
	"cmp"
	"net/http"
)

// whyRejectedClaim says what to do about a claim of a JWT that Vault does not accept, whichever
// method looks at it; "" for another refusal. Both methods that take a JWT check it by the same
// library of Vault's.
func whyRejectedClaim(ans *answer) string {
	switch {
	case ans.mentions("(aud) claim"):
		return "the token is for another audience than the role wants: ask for a token with the audience of the role"
	case ans.mentions("token is expired"):
		return "the token has expired: whoever writes the token's file has to renew it in time; look also at the clocks of this machine and of Vault"
	case ans.mentions("not yet valid", "issued in the future"):
		return "the token is not yet valid: the clock of this machine, of the token's issuer or of Vault is wrong, set them by NTP"
	case ans.mentions("(iss) claim"):
		return "the token is of another issuer than Vault expects: compare its iss with the issuer in the configuration of the auth method"
	}
	return ""
}

// whyRoleRejectsClaim is whyRejectedClaim for what the jwt method alone compares.
func whyRoleRejectsClaim(ans *answer) string {
	switch {
	case ans.mentions("(sub) claim"):
		return "the token is of another subject than the role allows: compare its sub with bound_subject of the role"
	case ans.mentions("no audiences bound to the role"):
		return "the token has an audience, and the role names none: set bound_audiences of the role to it"
	case ans.says("error validating claims"):
		return "a claim of the token is not what the role allows: compare the token with bound_claims of the role"
	case ans.says("claim ") && ans.mentions("not found in token", "could not be converted"):
		return "the token lacks the claim that names its user: compare the token with user_claim of the role"
	case ans.mentions("claims in token"):
		return "the token says neither when it was issued nor when it expires, and Vault wants one of them: issue it with exp"
	}
	return ""
}

func whyRejectedByJWT(who Identity, ans *answer) string {
	if claim := cmp.Or(whyRejectedClaim(ans), whyRoleRejectsClaim(ans)); claim != "" {
		return claim
	}
	at := "auth/" + who.Mount
	switch {
	case ans.endsIn("could not be found"):
		return "Vault has no such role at the mount: check auth.role against vault list " + at + "/role"
	case ans.mentions("fetching keys", "get keys failed"):
		return "Vault cannot fetch the keys of the token's issuer: let it reach jwks_url or oidc_discovery_url in " + at + "/config"
	case ans.mentions("signature"):
		return "no key that Vault has for the issuer fits the token's signature: compare who issues it with " + at + "/config"
	case ans.mentions("oidc role_type"):
		return "the role is for people with a browser: make one with role_type=jwt"
	case ans.says("could not load configuration", "error configuring token validator"):
		return "the jwt auth method at the mount is not configured: vault write " + at + "/config, with the keys of the issuer"
	case ans.mentions(otherMethod...):
		return otherMethodRemedy(MethodJWT)
	case ans.status == http.StatusForbidden:
		return noMountRemedy(MethodJWT) + "; or the role's token_bound_cidrs leave the sidecar's network out"
	case ans.status == http.StatusBadRequest, ans.status >= 500:
		return "Vault does not accept the token for the role: compare the token's claims with vault read " + at + "/role/ROLE"
	}
	return noMountRemedy(MethodJWT)
}

// otherMethod are what another auth method says to a login that sends what it does not know. A
// kubernetes method says it to a JWT that is not of its own.
var otherMethod = append([]string{"failed to determine alias name", "missing role_id", "error(s) decoding"}, noCertificate...)

func otherMethodRemedy(method Method) string {
	return "another auth method than " + method.String() + " is mounted there: check auth.mount and auth.method"
}

func noMountRemedy(method Method) string {
	return "check auth.mount and the namespace, and that the " + method.String() + " auth method is enabled there"
}
