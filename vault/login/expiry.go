package login

import (
	"context"
	"errors"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// expiry is what is known about the end of one secret_id.
type expiry struct {
	creds credentials
	at    time.Time // zero: never, or not known
}

// SecretIDExpiresAt is when the secret_id in use expires. The zero time means never or unknown:
// Config.LookUpSecretID is not set, or the role's policies do not allow the lookup.
func (s *Source) SecretIDExpiresAt() time.Time {
	if known := s.secretIDExpiry.Load(); known != nil {
		return known.at
	}
	return time.Time{}
}

// lookUpSecretID finds out, beside the loop, when the secret_id of the last login expires. It asks
// once for each; after an outage, the next login asks again. Its outcome says nothing about reads,
// so the breaker does not hear of it.
func (a *actor) lookUpSecretID(ctx context.Context, token *vault.Token, creds credentials) {
	known := a.secretIDExpiry.Load()
	if !a.cfg.LookUpSecretID || known != nil && known.creds == creds || creds.secretID.IsEmpty() || !token.HasPlainRole() {
		return
	}
	unknown := &expiry{creds: creds}
	a.secretIDExpiry.Store(unknown)
	a.loops.Go(func() {
		ctx, cancel := a.operation(ctx)
		defer cancel()
		ctx, stop := vault.UntilClosed(ctx, a.closed)
		defer stop()
		at, err := a.askExpiry(ctx, token, creds)
		switch {
		case errors.Is(err, vault.ErrNotAllowed):
			a.log.Info("Vault does not tell when the secret_id expires; to have it in the metrics, allow update on "+
				"auth/AUTH_MOUNT/role/ROLE/secret-id/lookup", "role", token.Role)
		case err != nil:
			a.log.Debug("cannot look the secret_id up", vault.DebugAttrs(err)...)
			a.secretIDExpiry.CompareAndSwap(unknown, nil)
		default: // unless there is a newer secret_id
			a.secretIDExpiry.CompareAndSwap(unknown, &expiry{creds, at})
		}
	})
}

func (s *Source) askExpiry(ctx context.Context, token *vault.Token, creds credentials) (time.Time, error) {
	secretID := creds.secretID
	if s.cfg.SecretIDWrapped {
		var err error
		if secretID, err = s.cfg.Budget.unwrap(ctx, s.cfg.Client, secretID); err != nil { // remembered since the login
			return time.Time{}, err
		}
	}
	return s.cfg.Client.SecretIDExpiry(ctx, token, vault.AppRole{Mount: s.cfg.AuthMount, RoleID: creds.roleID, SecretID: secretID})
}
