package devvault

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// clockSkew is how wrong Vault allows clocks to be.
const clockSkew = time.Minute

// claims are those of a JWT that are looked at.
type claims struct {
	Issuer     string    `json:"iss"`
	Subject    string    `json:"sub"`
	Audience   audiences `json:"aud"`
	Expires    float64   `json:"exp"`
	NotBefore  float64   `json:"nbf"`
	IssuedAt   float64   `json:"iat"`
	Kubernetes *struct {
		Namespace      string `json:"namespace"`
		ServiceAccount struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
	all map[string]any
}

// audiences are one text, or a list.
type audiences []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audiences) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// verifyJWT logs in by the jwt method.
func verifyJWT(r *request, b *identityBackend) (*identityRole, map[string]string, error) {
	if b.config == nil {
		return nil, nil, badRequest("could not load configuration")
	}
	name := r.body.text("role")
	role := b.roles[name]
	switch {
	case name == "":
		return nil, nil, badRequest("missing role")
	case role == nil:
		return nil, nil, badRequest("role %q could not be found", name)
	case role.bound.text("role_type") != "jwt":
		return nil, nil, badRequest("role with oidc role_type is not allowed")
	case r.body.text("jwt") == "":
		return nil, nil, badRequest("missing token")
	}
	token, err := parseJWT(r.body.text("jwt"))
	if err == nil {
		err = token.verify(b.config)
	}
	if err != nil {
		return nil, nil, badRequest("error validating token: error verifying token signature: %v", err)
	}
	var bound []string
	role.bound.setList("bound_audiences", &bound)
	if err := token.claims.check(b.config.text("bound_issuer"), role.bound.text("bound_subject"), bound, false); err != nil {
		return nil, nil, badRequest("error validating token: %v", err)
	}
	if len(bound) == 0 && len(token.claims.Audience) > 0 {
		return nil, nil, badRequest("audience claim found in JWT but no audiences bound to the role")
	}
	userClaim := role.bound.text("user_claim")
	if token.claims.all[userClaim] == nil {
		return nil, nil, badRequest("claim %q not found in token", userClaim)
	}
	return role, map[string]string{"role": name}, checkBoundClaims(role.bound, token.claims.all)
}

// checkBoundClaims returns what is wrong with a claim that the role compares as text.
func checkBoundClaims(bound fields, all map[string]any) error {
	for name, want := range bound.strings("bound_claims") {
		switch got, there := all[name]; {
		case !there:
			return badRequest("error validating claims: claim %q is missing", name)
		case fmt.Sprint(got) != want:
			return badRequest("error validating claims: claim %q does not match any associated bound claim values", name)
		}
	}
	return nil
}

// jsonWebToken is a JWT that is not verified yet.
type jsonWebToken struct {
	signed    string
	signature []byte
	claims    claims
}

func parseJWT(text string) (*jsonWebToken, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, errors.New("go-jose/go-jose: compact JWS format must have three parts")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, err
	}
	token := &jsonWebToken{signed: parts[0] + "." + parts[1], signature: signature}
	if err := json.Unmarshal(payload, &token.claims); err != nil {
		return nil, err
	}
	return token, json.Unmarshal(payload, &token.claims.all)
}

// verify returns nil when one of jwt_validation_pubkeys has made the signature.
func (token *jsonWebToken) verify(config fields) error {
	var texts []string
	config.setList("jwt_validation_pubkeys", &texts)
	for _, text := range texts {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			continue
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if key, ok := parsed.(*ecdsa.PublicKey); err == nil && ok && token.isSignedBy(key) {
			return nil
		}
	}
	return errors.New("no known key successfully validated the token signature")
}

func (token *jsonWebToken) isSignedBy(key *ecdsa.PublicKey) bool {
	const half = 32
	if len(token.signature) != 2*half {
		return false
	}
	sum := sha256.Sum256([]byte(token.signed))
	var r, s big.Int
	r.SetBytes(token.signature[:half])
	s.SetBytes(token.signature[half:])
	return ecdsa.Verify(key, sum[:], &r, &s)
}

// check compares the claims in Vault's order. Empty is anything.
func (c *claims) check(issuer, subject string, wanted []string, mayLackTimes bool) error {
	now := time.Now()
	at := func(seconds float64) time.Time { return time.Unix(int64(seconds), 0) }
	switch {
	case issuer != "" && issuer != c.Issuer:
		return errors.New("invalid issuer (iss) claim")
	case subject != "" && subject != c.Subject:
		return errors.New("invalid subject (sub) claim")
	case len(wanted) > 0 && !slices.ContainsFunc(wanted, func(one string) bool { return slices.Contains(c.Audience, one) }):
		return errors.New("invalid audience (aud) claim: audience claim does not match any expected audience")
	case c.Expires == 0 && c.NotBefore == 0 && c.IssuedAt == 0:
		if mayLackTimes {
			return nil
		}
		return errors.New("no issued at (iat), not before (nbf), or expiration time (exp) claims in token")
	case now.Add(clockSkew).Before(at(c.NotBefore)):
		return errors.New("invalid not before (nbf) claim: token not yet valid")
	case c.Expires != 0 && now.Add(-clockSkew).After(at(c.Expires)):
		return errors.New("invalid expiration time (exp) claim: token is expired")
	case now.Add(clockSkew).Before(at(c.IssuedAt)):
		return errors.New("invalid issued at (iat) claim: token issued in the future")
	}
	return nil
}
