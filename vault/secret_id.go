package vault

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

const doingLookup = "look the secret_id up"

// errLookupDenied: the token may not look secret_ids up.
var errLookupDenied = errors.New("the secret_id may not be looked up")

// lookUpExpiry asks Vault when the secret_id of creds expires; the zero time is never. tok was granted for creds.
// Errors: errLookupDenied, an outage, or ctx's.
func (a *authenticator) lookUpExpiry(ctx context.Context, tok *token, creds credentials) (time.Time, error) {
	secretID := creds.secretID
	if a.wrapped {
		var err error
		if secretID, err = a.guard.unwrap(ctx, a.api, secretID); err != nil { // remembered since the login
			return time.Time{}, err
		}
	}
	// Ungated: what this path answers says nothing about reads.
	ans, err := a.api.ungated().call(ctx, request{doing: doingLookup, kind: CallLookup, method: http.MethodPost, token: tok.id,
		path: "auth/" + a.mount + "/role/" + tok.role + "/secret-id/lookup", template: "auth/{mount}/role/{role}/secret-id/lookup",
		body: map[string]string{"secret_id": secretID.Reveal()}})
	if err != nil {
		return time.Time{}, err
	}
	var body struct {
		Data struct {
			ExpirationTime time.Time `json:"expiration_time"`
		} `json:"data"`
	}
	if ans.status != http.StatusOK || decode(ans.body, &body) != nil {
		return time.Time{}, errLookupDenied
	}
	return body.Data.ExpirationTime, nil
}

// secretIDExpiry is what is known of the end of one secret_id.
type secretIDExpiry struct {
	creds credentials
	at    time.Time // zero: never, or not known
}

// lookUpSecretID finds out, besides the loop, when the secret_id expires that a login has just used. It does so once for
// each; after an outage, the next login tries again.
func (k *keeper) lookUpSecretID(ctx context.Context, tok *token, creds credentials) {
	known := k.c.secretIDExpires.Load()
	if !k.c.lookUpSecretID || known != nil && known.creds == creds || creds.secretID.IsEmpty() || !plainName(tok.role) {
		return
	}
	unknown := &secretIDExpiry{creds: creds}
	k.c.secretIDExpires.Store(unknown)
	k.c.loops.Go(func() {
		ctx, cancel := k.c.operation(ctx)
		defer cancel()
		ctx, stop := k.c.untilClosed(ctx)
		defer stop()
		expires, err := k.c.auth.lookUpExpiry(ctx, tok, creds)
		switch {
		case errors.Is(err, errLookupDenied):
			k.log.Info("Vault does not tell when the secret_id expires; to have it in the metrics, allow update on "+
				"auth/AUTH_MOUNT/role/ROLE/secret-id/lookup", "role", tok.role)
		case err != nil:
			k.log.Debug("cannot look the secret_id up", debugAttrs(err)...)
			k.c.secretIDExpires.CompareAndSwap(unknown, nil)
		default: // unless there is a newer secret_id
			k.c.secretIDExpires.CompareAndSwap(unknown, &secretIDExpiry{creds, expires})
		}
	})
}

// plainName reports whether a role's name, which Vault tells, is one segment of a path.
func plainName(role string) bool {
	return role != "" && role != "." && role != ".." && !strings.Contains(role, "/")
}
