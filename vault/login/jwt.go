package login

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const (
	// maxJWTBytes bounds a JWT; some issuers list all groups of a user in it.
	maxJWTBytes = 16 << 10
	// expiredFor is how long a JWT must have expired to be hopeless. Vault allows less by default,
	// and this machine's clock may be wrong a little.
	expiredFor = 5 * time.Minute
)

// ErrExpired means: the JWT in the file has expired some time ago. Whoever writes it has stopped,
// or this machine's clock is wrong.
var ErrExpired = errors.New("the token has expired")

// ReadJWT is Read for a JSON Web Token. It refuses what is none, and what has expired too long ago
// for any Vault.
func (c Credential) ReadJWT(setting string) (redact.String, error) {
	text, fault := c.read(setting, maxJWTBytes)
	if fault == nil && text != "" {
		fault = checkJWT(text, time.Now())
	}
	if fault != nil {
		fault.Setting, fault.File = setting, c.File
		return redact.String{}, fault
	}
	return redact.New(text), nil
}

// checkJWT looks at the form and at the end of a JWT; the rest is for Vault to judge.
func checkJWT(text string, now time.Time) *CredentialError {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return malformed("holds no JSON Web Token", "a token is three parts with dots between them, write that alone")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Exp *float64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return malformed("holds no JSON Web Token", "its middle part is not what it should be, copy or issue it again")
	}
	if claims.Exp != nil && now.Add(-expiredFor).After(time.Unix(int64(*claims.Exp), 0)) {
		return &CredentialError{Kind: ErrExpired, Problem: "holds a token that has expired",
			Remedy: "let whoever writes the file renew it in time, the kubelet for example; if it does, set this machine's clock"}
	}
	return nil
}
