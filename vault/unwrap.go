package vault

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/sync/semaphore"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const doingUnwrap = "unwrap the secret_id"

// unwrapped is what came out of a wrapping token. It is kept as long as the process runs: the token cannot be
// used again, and a reload or a test must not try.
type unwrapped struct {
	busy     *semaphore.Weighted // weight 1; guards secretID
	secretID redact.String       // empty until unwrapped
}

// unwrap returns the secret_id behind a wrapping token, asking Vault only the first time. Errors:
// ErrLoginRejected when the token is spent or was not made for a secret_id, an outage, or ctx's.
func (g *Guard) unwrap(ctx context.Context, a *vaultAPI, wrappingToken redact.String) (redact.String, error) {
	key := sha256.Sum256([]byte(wrappingToken.Reveal()))
	entry := g.unwrappedEntry(key)
	if err := entry.busy.Acquire(ctx, 1); err != nil {
		return redact.String{}, transportError(ctx, doingUnwrap, err)
	}
	defer entry.busy.Release(1)
	if !entry.secretID.IsEmpty() {
		return entry.secretID, nil
	}
	secretID, err := a.checkAndUnwrap(ctx, wrappingToken)
	if errors.Is(err, ErrLoginRejected) {
		g.forgetUnwrapped(key) // there is nothing to keep
	}
	entry.secretID = secretID
	return secretID, err
}

func (a *vaultAPI) checkAndUnwrap(ctx context.Context, wrappingToken redact.String) (redact.String, error) {
	if err := a.checkWrapping(ctx, wrappingToken); err != nil {
		return redact.String{}, err
	}
	return a.unwrapSecretID(ctx, wrappingToken)
}

func (g *Guard) forgetUnwrapped(key [32]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.unwrapped, key)
}

func (g *Guard) unwrappedEntry(key [32]byte) *unwrapped {
	g.mu.Lock()
	defer g.mu.Unlock()
	entry := g.unwrapped[key]
	if entry == nil {
		entry = &unwrapped{busy: semaphore.NewWeighted(1)}
		g.unwrapped[key] = entry
	}
	return entry
}

// checkWrapping refuses a wrapping token that Vault did not make for a secret_id: somebody may have opened the
// right one and put another in its place.
func (a *vaultAPI) checkWrapping(ctx context.Context, wrappingToken redact.String) error {
	ans, err := a.call(ctx, request{doing: doingUnwrap, kind: CallUnwrap, method: http.MethodPost, path: "sys/wrapping/lookup",
		body: map[string]string{"token": wrappingToken.Reveal()}})
	if err != nil {
		return err
	}
	var body struct {
		Data struct {
			CreationPath string `json:"creation_path"`
		} `json:"data"`
	}
	_ = decode(ans.body, &body)
	switch {
	case ans.status == http.StatusBadRequest:
		return spentWrappingToken()
	case ans.status != http.StatusOK:
		return nil // the lookup is a precaution; the unwrapping decides
	case !strings.HasSuffix(body.Data.CreationPath, "/secret-id"):
		return unwrapRejected("the wrapping token was not made for a secret_id: treat it as an attack, and issue a new one")
	}
	return nil
}

func (a *vaultAPI) unwrapSecretID(ctx context.Context, wrappingToken redact.String) (redact.String, error) {
	ans, err := a.call(ctx, request{doing: doingUnwrap, kind: CallUnwrap, method: http.MethodPost, path: "sys/wrapping/unwrap",
		token: wrappingToken})
	switch {
	case err != nil:
		return redact.String{}, err
	case ans.status != http.StatusOK:
		return redact.String{}, spentWrappingToken()
	}
	var body struct {
		Data struct {
			SecretID json.RawMessage `json:"secret_id"`
		} `json:"data"`
	}
	var secretID string
	if decode(ans.body, &body) != nil || json.Unmarshal(body.Data.SecretID, &secretID) != nil || secretID == "" {
		return redact.String{}, unwrapRejected("the wrapping token holds no secret_id: wrap the answer of the role's secret-id endpoint")
	}
	return redact.New(secretID), nil
}

func spentWrappingToken() error {
	return unwrapRejected("the wrapping token was already used, or has expired: unless it was you, by a restart with the " +
		"same one, somebody else has the secret_id, and this may be an attack: destroy that secret_id and issue a new one")
}

func unwrapRejected(remedy string) error {
	return &CallError{Sentinel: ErrLoginRejected, Doing: doingUnwrap, Remedy: remedy}
}
