package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"testing"
	"time"
)

// Issuer signs JSON Web Tokens with a key of its own.
type Issuer struct{ key *ecdsa.PrivateKey }

// Claims are what a token says; nil leaves a claim out.
type Claims = map[string]any

// NewIssuer makes an issuer.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Issuer{key: key}
}

// PublicKey is the key in PEM format, for jwt_validation_pubkeys.
func (i *Issuer) PublicKey(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(i.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Token signs a token that is good for an hour, for the audience "vault" and the subject "worker",
// unless the claims say something else.
func (i *Issuer) Token(t testing.TB, changed Claims) string {
	t.Helper()
	now := time.Now()
	claims := Claims{"iss": "issuer", "sub": "worker", "aud": "vault", "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	return i.sign(t, claims, changed)
}

func (i *Issuer) sign(t testing.TB, claims, changed Claims) string {
	t.Helper()
	maps.Copy(claims, changed)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	part := base64.RawURLEncoding.EncodeToString
	signed := part([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + part(payload)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + part(signature)
}
