package vault

import "net/http"

func whyRejectedByKubernetes(who Identity, ans *answer) string {
	if claim := whyRejectedClaim(ans); claim != "" {
		return claim
	}
	at := "auth/" + who.Mount
	switch {
	case ans.says("invalid role name"):
		return "Vault has no such role at the mount: check auth.role against vault list " + at + "/role"
	case ans.mentions("service account name not authorized"):
		return "the role does not allow the pod's service account: add it to bound_service_account_names, or give the pod another serviceAccountName"
	case ans.mentions("namespace not authorized"):
		return "the role does not allow the pod's namespace: add it to bound_service_account_namespaces"
	case ans.says("could not parse UID", "could not convert") || ans.mentions("error(s) decoding"):
		return "the token is none of a service account: check auth.token_file; tokens of others are for auth.method jwt"
	case ans.says("could not load backend configuration"):
		return "the kubernetes auth method at the mount is not configured: vault write " + at + "/config kubernetes_host=…"
	case ans.mentions(otherMethod...):
		return otherMethodRemedy(MethodKubernetes)
	case ans.status == http.StatusForbidden:
		return noMountRemedy(MethodKubernetes) + "; if all is right, the cluster has not confirmed the token: its pod or service account is gone, " +
			"the role's audience is not the cluster's, Vault does not reach kubernetes_host or may not create tokenreviews there " +
			"(system:auth-delegator), or the role's token_bound_cidrs leave the sidecar's network out"
	case ans.status == http.StatusBadRequest, ans.status >= 500:
		return "Vault does not accept the token for the role: compare the pod with vault read " + at + "/role/ROLE"
	}
	return noMountRemedy(MethodKubernetes)
}
