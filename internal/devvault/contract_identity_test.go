package devvault_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// ownAuth is the auth part of a login with an own identity: without a role_name, but with these
// metadata.
func ownAuth(role string, metadata object) object {
	policies := []string{"default", role}
	return auth("", object{"metadata": metadata, "policies": policies, "token_policies": policies, "lease_duration": 3600})
}

// jwtLogin is a call that logs in at the mount with a JWT; an empty role or token is left out.
func jwtLogin(name, mount, role, token string, status int, want object) call {
	body := object{}
	if role != "" {
		body["role"] = role
	}
	if token != "" {
		body["jwt"] = token
	}
	return call{name: name, method: http.MethodPost, path: "auth/" + mount + "/login", body: body, status: status, want: want}
}

func TestContractKubernetesLogin(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		k := vaulttest.NewKubernetes(t)
		mount, role := vaulttest.Unique("kubernetes"), vaulttest.Unique("role")
		v.KubernetesRole(t, k, mount, role, role)
		token := k.Token(t, "flows", "worker", nil)
		good := envelope("", object{"auth": ownAuth(role, object{
			"role": role, "service_account_name": "worker", "service_account_namespace": "flows",
			"service_account_secret_name": "", "service_account_uid": "uid-of-worker",
		})})
		in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
		made := func(changed vaulttest.Claims) string { return k.Token(t, "flows", "worker", changed) }
		expect(t, v,
			jwtLogin("a good token", mount, role, token, 200, good),
			jwtLogin("the same again", mount, role, token, 200, good),
			jwtLogin("several audiences", mount, role, made(vaulttest.Claims{"aud": []string{"api", "vault"}}), 200, good),
			jwtLogin("no role", mount, "", token, 400, failure("missing role")),
			jwtLogin("no token", mount, role, "", 400, failure("missing jwt")),
			jwtLogin("an unknown role", mount, "nope", token, 400, failure(`invalid role name "nope"`)),
			jwtLogin("another account", mount, role, k.Token(t, "flows", "other", nil), 403, failure("service account name not authorized")),
			jwtLogin("another namespace", mount, role, k.Token(t, "other", "worker", nil), 403, failure("namespace not authorized")),
			jwtLogin("another audience", mount, role, made(vaulttest.Claims{"aud": []string{"api"}}), 403,
				failure("invalid audience (aud) claim: audience claim does not match any expected audience")),
			jwtLogin("an expired token", mount, role, made(vaulttest.Claims{"exp": in(-10 * time.Minute)}), 403,
				failure("invalid expiration time (exp) claim: token is expired")),
			jwtLogin("a token of tomorrow", mount, role, made(vaulttest.Claims{"nbf": in(24 * time.Hour)}), 403,
				failure("invalid not before (nbf) claim: token not yet valid")),
			jwtLogin("a token issued tomorrow", mount, role, made(vaulttest.Claims{"iat": in(24 * time.Hour)}), 403,
				failure("invalid issued at (iat) claim: token issued in the future")),
			jwtLogin("no token of a service account", mount, role, made(vaulttest.Claims{"kubernetes.io": nil}), 403,
				failure("service account name not authorized")),
			jwtLogin("no JWT", mount, role, "garbage", 403, noToken),
		)
		k.SetDown(true)
		expect(t, v, jwtLogin("a cluster that does not answer", mount, role, token, 403, noToken))
		k.SetDown(false)
		k.Revoke(token)
		expect(t, v, jwtLogin("a token that the cluster does not know", mount, role, token, 403, noToken))
		plain := vaulttest.Unique("kubernetes")
		v.Enable(t, "kubernetes", plain)
		v.Write(t, "auth/"+plain+"/role/"+role, object{"bound_service_account_names": "*", "bound_service_account_namespaces": "*"})
		expect(t, v, jwtLogin("a mount that is not configured", plain, role, token, 500, failure("could not load backend configuration")))
	})
}

func TestContractJWTLogin(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		i := vaulttest.NewIssuer(t)
		mount, role := vaulttest.Unique("jwt"), vaulttest.Unique("role")
		v.JWTRole(t, i, mount, role, role)
		other := func(name string, changed object) string {
			body := object{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault"}
			for key, value := range changed {
				body[key] = value
			}
			v.Write(t, "auth/"+mount+"/role/"+name, body)
			return name
		}
		good := envelope("", object{"auth": ownAuth(role, object{"role": role})})
		in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
		refused := func(name string, token, text string) call {
			return jwtLogin(name, mount, role, token, 400, failure(text))
		}
		token := i.Token(t, nil)
		expect(t, v,
			jwtLogin("a good token", mount, role, token, 200, good),
			jwtLogin("no role", mount, "", token, 400, failure("missing role")),
			jwtLogin("no token", mount, role, "", 400, failure("missing token")),
			jwtLogin("an unknown role", mount, "nope", token, 400, failure(`role "nope" could not be found`)),
			refused("another issuer", i.Token(t, vaulttest.Claims{"iss": "other"}), "error validating token: invalid issuer (iss) claim"),
			refused("another audience", i.Token(t, vaulttest.Claims{"aud": "other"}),
				"error validating token: invalid audience (aud) claim: audience claim does not match any expected audience"),
			refused("an expired token", i.Token(t, vaulttest.Claims{"exp": in(-10 * time.Minute)}),
				"error validating token: invalid expiration time (exp) claim: token is expired"),
			refused("a token of tomorrow", i.Token(t, vaulttest.Claims{"nbf": in(24 * time.Hour), "exp": in(48 * time.Hour)}),
				"error validating token: invalid not before (nbf) claim: token not yet valid"),
			refused("a token issued tomorrow", i.Token(t, vaulttest.Claims{"iat": in(24 * time.Hour)}),
				"error validating token: invalid issued at (iat) claim: token issued in the future"),
			refused("a token without times", i.Token(t, vaulttest.Claims{"iat": nil, "nbf": nil, "exp": nil}),
				"error validating token: no issued at (iat), not before (nbf), or expiration time (exp) claims in token"),
			refused("another key", vaulttest.NewIssuer(t).Token(t, nil),
				"error validating token: error verifying token signature: no known key successfully validated the token signature"),
			refused("no JWT", "garbage", "error validating token: error verifying token signature: go-jose/go-jose: compact JWS format must have three parts"),
			jwtLogin("another subject", mount, other("subject", object{"bound_subject": "x"}), token, 400, failure("error validating token: invalid subject (sub) claim")),
			jwtLogin("a claim that is missing", mount, other("claim", object{"bound_claims": object{"repo": "x"}}), token, 400,
				failure(`error validating claims: claim "repo" is missing`)),
			jwtLogin("another value of a claim", mount, "claim", i.Token(t, vaulttest.Claims{"repo": "y"}), 400,
				failure(`error validating claims: claim "repo" does not match any associated bound claim values`)),
			jwtLogin("no claim for the user", mount, other("user", object{"user_claim": "email"}), token, 400, failure(`claim "email" not found in token`)),
		)
		plain := vaulttest.Unique("jwt")
		v.Enable(t, "jwt", plain)
		expect(t, v, jwtLogin("a mount that is not configured", plain, role, token, 400, failure("could not load configuration")))
	})
}

func TestContractCertLogin(t *testing.T) {
	t.Parallel()
	vaulttest.EachTLS(t, func(t *testing.T, v *vaulttest.Vault) {
		a := vaulttest.NewAuthority(t)
		v.CertRole(t, a, "cert", "worker", "worker")
		v.CertRole(t, vaulttest.NewAuthority(t), "elsewhere", "worker", "worker")
		soon := time.Now().Add(time.Hour)
		shown := a.Issue(t, "worker", soon)
		noMatch := failure("failed to match all constraints for this login certificate")
		for _, c := range []struct {
			name, mount, role string
			shown             vaulttest.ClientCertificate
			status            int
			want              object
		}{
			{"another authority", "elsewhere", "worker", shown, 400, noMatch},
			{"another client", "cert", "worker", a.Issue(t, "other", soon), 400, noMatch},
			{"an unknown role", "cert", "nope", shown, 400, noMatch},
			{"no certificate", "cert", "worker", vaulttest.ClientCertificate{}, 400, failure("client certificate must be supplied")},
		} {
			answer := v.CallAs(t, c.shown, http.MethodPost, "auth/"+c.mount+"/login", object{"name": c.role})
			if got, want := string(encode(t, canonical(t, answer.Body))), string(encode(t, canonical(t, c.want))); answer.Status != c.status || got != want {
				t.Errorf("%s: %d %s, want %d %s", c.name, answer.Status, got, c.status, want)
			}
		}
		answer := v.CallAs(t, shown, http.MethodPost, "auth/cert/login", object{"name": "worker"})
		granted, _ := answer.Body["auth"].(map[string]any)
		metadata, _ := granted["metadata"].(map[string]any)
		if answer.Status != 200 || metadata["cert_name"] != "worker" || metadata["common_name"] != "worker" || granted["token_type"] != "service" {
			t.Errorf("a good certificate: %d %s", answer.Status, answer.Text)
		}
		expired := v.CallAs(t, a.Issue(t, "worker", time.Now().Add(-time.Minute)), http.MethodPost, "auth/cert/login", object{"name": "worker"})
		if expired.Status != 500 {
			t.Errorf("an expired certificate: %d %s", expired.Status, expired.Text)
		}
	})
}
