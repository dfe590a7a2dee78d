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

// secretIDExpiry asks Vault when the secret_id of creds expires; the zero time is never. tok was granted for creds.
// Errors: errLookupDenied, an outage, or ctx's.
func (a *authenticator) secretIDExpiry(ctx context.Context, tok *token, creds credentials) (time.Time, error) {
	secretID := creds.secretID
	if a.wrapped {
		var err error
		if secretID, err = a.guard.unwrap(ctx, a.api, secretID); err != nil { // remembered since the login
			return time.Time{}, err
		}
	}
	ans, err := a.api.call(ctx, request{doing: doingLookup, kind: CallLookup, method: http.MethodPost, token: tok.id,
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

// lookUpSecretID finds out, besides the loop, when a secret_id expires that has just been used for the first time. A
// refusal is not met again with the same one.
func (k *keeper) lookUpSecretID(ctx context.Context, tok *token, creds credentials) {
	if !k.c.lookUpSecretID || creds == k.lookedUp || creds.secretID.IsEmpty() || !plainName(tok.role) {
		return
	}
	k.lookedUp = creds
	unknown := new(time.Time)
	k.c.secretIDExpires.Store(unknown)
	k.c.loops.Go(func() {
		ctx, cancel := k.c.operation(ctx)
		defer cancel()
		ctx, stop := k.c.untilClosed(ctx)
		defer stop()
		expires, err := k.c.auth.secretIDExpiry(ctx, tok, creds)
		switch {
		case errors.Is(err, errLookupDenied):
			k.log.Info("Vault does not tell when the secret_id expires; to have it in the metrics, allow update on "+
				"auth/AUTH_MOUNT/role/ROLE/secret-id/lookup", "role", tok.role)
		case err != nil:
			k.log.Debug("cannot look the secret_id up", debugAttrs(err)...)
		default:
			k.c.secretIDExpires.CompareAndSwap(unknown, &expires) // unless there is a newer secret_id
		}
	})
}

// plainName reports whether a role's name, which Vault tells, is one segment of a path.
func plainName(role string) bool {
	return role != "" && role != "." && role != ".." && !strings.Contains(role, "/")
}
