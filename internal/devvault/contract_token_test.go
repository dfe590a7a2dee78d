package devvault_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

const (
	renewSelf  = "auth/token/renew-self"
	revokeSelf = "auth/token/revoke-self"
)

// renewed is the answer to a renewal of an AppRole's token.
func renewed(role string, seconds int, warnings ...string) object {
	changes := object{"auth": auth(role, object{"lease_duration": seconds})}
	if warnings != nil {
		changes["warnings"] = warnings
	}
	return envelope("token", changes)
}

func TestContractRenewSelf(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		role, token := roleToken(t, v, object{"token_ttl": "1h"}, "")
		_, batch := roleToken(t, v, object{"token_type": "batch", "token_ttl": "1h"}, "")
		periodicRole, periodic := roleToken(t, v, object{"token_period": "30m"}, "")
		cappedRole, capped := roleToken(t, v, object{"token_ttl": "1h", "token_max_ttl": "1h"}, "")
		_, denied := roleToken(t, v, nil,
			`path "auth/token/renew-self" { capabilities = ["deny"] }`)
		_, bare := roleToken(t, v, object{"token_no_default_policy": true},
			`path "x" { capabilities = ["read"] }`)
		deletedRole, orphaned := roleToken(t, v, nil, "")
		v.Do(t, http.MethodDelete, "auth/approle/role/"+deletedRole, nil)
		renew := func(name, token string, body any, status int, want object) call {
			return call{name, token, http.MethodPost, renewSelf, body, nil, status, want}
		}
		expect(t, v,
			renew("for its ttl", token, nil, 200, renewed(role, 3600)),
			renew("for longer", token, object{"increment": "2h"}, 200, renewed(role, 7200)),
			renew("in seconds", token, object{"increment": 60}, 200, renewed(role, 60)),
			renew("no duration", token, object{"increment": "x"}, 400,
				failure(`Field validation failed: error converting input for field "increment": time: invalid duration "x"`)),
			renew("periodic, whatever is asked", periodic, object{"increment": "2h"}, 200,
				renewed(periodicRole, 1800)),
			renew("batch", batch, nil, 400, failure("batch tokens cannot be renewed")),
			renew("root", v.RootToken, nil, 400, failure("lease is not renewable")),
			renew("a policy denies", denied, nil, 403, policyDenied),
			renew("no policy allows", bare, nil, 403, policyDenied),
			renew("the role is gone", orphaned, nil, 500,
				failure("1 error occurred:\n\t* failed to renew entry: role \""+deletedRole+
					"\" does not exist during renewal\n\n")),
			renew("no token", "", nil, 403, noToken),
			renew("garbage", "garbage", nil, 403, invalidToken),
		)
		// The maximum counts in whole seconds, of which one may just have begun.
		answer := v.Call(t, capped, http.MethodPost, renewSelf, object{"increment": "2h"}, nil)
		granted, _ := answer.Body["auth"].(map[string]any)["lease_duration"].(json.Number)
		left := map[string][2]any{"3600": {3600, "1h"}, "3599": {3599, "59m59s"},
			"3598": {3598, "59m58s"}}[string(granted)]
		if left[0] == nil {
			t.Fatalf("renewal past the maximum: granted %v", granted)
		}
		want := renewed(cappedRole, left[0].(int),
			`TTL of "2h" exceeded the effective max_ttl of "`+left[1].(string)+
				`"; TTL value is capped accordingly`)
		if got, want := string(encode(t, canonical(t, answer.Body))),
			string(encode(t, canonical(t, want))); got != want {
			t.Errorf("renewal past the maximum:\n got %s\nwant %s", got, want)
		}
	})
}

func TestContractTokenEndsAtItsMaximum(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		t.Parallel()
		start := time.Now()
		_, token := roleToken(t, v, object{"token_ttl": "2s", "token_max_ttl": "4s"}, "")
		var refused vaulttest.Answer
		last, slowest := time.Now(), time.Duration(0)
		// renews far more often than it needs, on a machine that lets it
		eventually(t, func() bool {
			refused = v.Call(t, token, http.MethodPost, renewSelf, nil, nil)
			last, slowest = time.Now(), max(slowest, time.Since(last))
			return refused.Status != http.StatusOK
		})
		const pastMaximum = `{"errors":["1 error occurred:\n\t* past the max TTL, cannot renew\n\n"]}` + "\n"
		late := refused.Status == http.StatusForbidden // so that the moment was missed
		if !late && (refused.Status != http.StatusInternalServerError ||
			refused.Text != pastMaximum) {
			t.Errorf("renewal past the maximum: %d %s", refused.Status, refused.Text)
		}
		if lived := time.Since(start); lived < 2500*time.Millisecond && slowest < time.Second {
			t.Errorf("lived %v, want about 4s", lived)
		}
		eventually(t, func() bool {
			return v.Call(t, token, http.MethodPost, renewSelf, nil,
				nil).Status == http.StatusForbidden
		})
		expect(t, v, call{"past its maximum", token, http.MethodGet, getOwnToken, nil, nil, 403,
			invalidToken})
	})
}

func TestContractExpiredToken(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		t.Parallel()
		_, token := roleToken(t, v, object{"token_ttl": "1s"}, "")
		_, batch := roleToken(t, v, object{"token_ttl": "1s", "token_type": "batch"}, "")
		for name, token := range map[string]string{"service": token, "batch": batch} {
			eventually(t, func() bool {
				return v.Call(t, token, http.MethodGet, getOwnToken, nil,
					nil).Status != http.StatusOK
			})
			expect(t, v,
				call{name + " token, read", token, http.MethodGet, "secret/data/x", nil, nil, 403,
					invalidToken},
				call{name + " token, renewal", token, http.MethodPost, renewSelf, nil, nil, 403,
					invalidToken},
			)
		}
	})
}

func TestContractRevocation(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		role, token := roleToken(t, v, nil, "")
		_, batch := roleToken(t, v, object{"token_type": "batch", "token_ttl": "1h"}, "")
		_, bare := roleToken(t, v, object{"token_no_default_policy": true},
			`path "x" { capabilities = ["read"] }`)
		expect(t, v,
			call{"itself", token, http.MethodPost, revokeSelf, nil, nil, 204, nil},
			call{"itself again", token, http.MethodPost, revokeSelf, nil, nil, 403, invalidToken},
			call{"renewal of a revoked one", token, http.MethodPost, renewSelf, nil, nil, 403,
				invalidToken},
			call{"read with a revoked one", token, http.MethodGet, "secret/data/x", nil, nil, 403,
				invalidToken},
			call{"batch", batch, http.MethodPost, revokeSelf, nil, nil, 400,
				failure("batch tokens cannot be revoked")},
			call{"no policy allows", bare, http.MethodPost, revokeSelf, nil, nil, 403,
				policyDenied},
			call{"by an operator", v.RootToken, http.MethodPost, "auth/token/revoke",
				object{"token": bare}, nil, 204, nil},
			call{"of a token that is gone", v.RootToken, http.MethodPost, "auth/token/revoke",
				object{"token": bare}, nil, 204, nil},
			call{"use after that", bare, http.MethodGet, "x", nil, nil, 403, invalidToken},
			call{"of an unknown accessor", v.RootToken, http.MethodPost,
				"auth/token/revoke-accessor", object{"accessor": "none"}, nil,
				200, envelope("token",
					object{"warnings": []string{"No token found with this accessor"}})},
			call{"lookup of a revoked token", v.RootToken, http.MethodPost, "auth/token/lookup",
				object{"token": token}, nil, 403, failure("bad token")},
			call{"lookup of an unknown accessor", v.RootToken, http.MethodPost,
				"auth/token/lookup-accessor", object{"accessor": "none"}, nil,
				400, failure("1 error occurred:\n\t* invalid accessor\n\n")},
		)
		if n := v.RevokeRoleTokens(t, role); n != 0 {
			t.Errorf("%d tokens of the role are left, want 0", n)
		}
	})
}

func TestContractRevokingAParentRevokesItsChildren(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		_, parent := roleToken(t, v, nil,
			`path "auth/token/create" { capabilities = ["update", "create"] }`)
		answer := v.Call(t, parent, http.MethodPost, "auth/token/create",
			object{"policies": []string{"default"}}, nil)
		if answer.Status != http.StatusOK {
			t.Fatalf("create: %d %s", answer.Status, answer.Text)
		}
		child := answer.Body["auth"].(map[string]any)["client_token"].(string)
		v.RevokeToken(t, parent)
		expect(t, v, call{"the child", child, http.MethodGet, getOwnToken, nil, nil, 403,
			invalidToken})
	})
}

func TestContractLookupSelf(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		role, token := roleToken(t, v, object{"token_period": "1h"}, "")
		answer := v.Call(t, token, http.MethodGet, getOwnToken, nil, nil)
		data, _ := answer.Body["data"].(map[string]any)
		if ttl := data["ttl"]; ttl != json.Number("3600") && ttl != json.Number("3599") {
			t.Errorf("ttl = %v, want 3599 or 3600", ttl)
		}
		delete(data, "ttl")
		want := envelope("token", object{"data": object{
			"accessor": some, "creation_time": some, "creation_ttl": 3600, "display_name": "approle", "entity_id": some,
			"expire_time": some, "explicit_max_ttl": 0, "id": some, "issue_time": some, "meta": object{"role_name": role},
			"num_uses": 0, "orphan": true, "path": "auth/approle/login", "period": 3600, "policies": []string{"default"},
			"renewable": true, "type": "service",
		}})
		if got, want := string(encode(t, canonical(t, answer.Body))),
			string(encode(t, canonical(t, want))); got != want {
			t.Errorf("lookup:\n got %s\nwant %s", got, want)
		}
	})
}

func TestContractTokenWithANumberOfUses(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		_, token := roleToken(t, v, object{"token_num_uses": 2}, "")
		expect(t, v,
			call{"a denied request is a use", token, http.MethodGet, "secret/data/x", nil, nil, 403,
				policyDenied},
			call{"and so is a last one", token, http.MethodGet, "secret/data/x", nil, nil, 403,
				policyDenied},
			call{"then it is over", token, http.MethodGet, "secret/data/x", nil, nil, 403,
				invalidToken},
		)
	})
}

func TestContractTokenCreate(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		made := func(changes object) object {
			fields := object{"metadata": nil, "orphan": false, "entity_id": "",
				"lease_duration": 3600}
			for name, value := range changes {
				fields[name] = value
			}
			return envelope("token", object{"auth": auth("", fields)})
		}
		create := func(name string, body, want object) call {
			return call{name, v.RootToken, http.MethodPost, "auth/token/create", body, nil, 200,
				want}
		}
		capped := made(object{"lease_duration": 2764800})
		capped["warnings"] = []string{`TTL of "9999h" exceeded the effective max_ttl of "768h"; TTL value is capped accordingly`}
		defaultPolicy := []string{"default"}
		expect(t, v,
			create("with a ttl", object{"policies": defaultPolicy, "ttl": "1h"}, made(nil)),
			create("batch", object{"policies": defaultPolicy, "ttl": "1h", "type": "batch"},
				made(object{"token_type": "batch", "accessor": "", "renewable": false})),
			create("not renewable",
				object{"policies": defaultPolicy, "ttl": "1h", "renewable": false},
				made(object{"renewable": false})),
			create("periodic orphan",
				object{"policies": defaultPolicy, "period": "1h", "no_parent": true},
				made(object{"orphan": true})),
			create("for too long", object{"policies": defaultPolicy, "ttl": "9999h"}, capped),
			create("root", nil,
				made(object{"policies": []string{"root"}, "token_policies": []string{"root"},
					"lease_duration": 0, "renewable": false})),
		)
	})
}
