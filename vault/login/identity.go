package login

import (
	"context"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// Identity says who logs in, and where.
type Identity struct {
	// Namespace and Mount say where the role is.
	Namespace, Mount string
	// RoleID and SecretID belong to the role; SecretID may be empty.
	RoleID, SecretID redact.String
	// Wrapped says that SecretID is a response-wrapping token.
	Wrapped bool
	// Proven says that Vault has accepted these before.
	Proven bool
}

// LogIn logs in as the identity and returns the token, within the Budget. After a login whose
// answer was lost it first asks whether Vault is well. Errors: those of vault.Client.Login and
// UnwrapSecretID; vault.ErrLoginRejected, with RetryAfter, when the Budget is spent.
func (b *Budget) LogIn(ctx context.Context, client *vault.Client, who Identity) (*vault.Token, error) {
	role := vault.AppRole{Mount: MountOf(who.Mount), RoleID: who.RoleID, SecretID: who.SecretID}
	if who.Wrapped {
		var err error
		if role.SecretID, err = b.unwrap(ctx, client, who.SecretID); err != nil {
			return nil, err
		}
	}
	attempt, err := b.reserve(ctx, newTarget(who.Namespace, role.Mount, who.RoleID), who.Proven)
	if err != nil {
		return nil, err
	}
	fate := vault.LoginNotTried
	defer func() { attempt.done(fate) }()
	if attempt.inDoubt {
		if err := askWhetherWell(ctx, client); err != nil {
			return nil, err
		}
	}
	token, fate, err := client.Login(ctx, role)
	return token, err
}

// askWhetherWell leaves half of the time to the login: a hanging question must not use up the 10 s
// within which a healthy Vault is used again.
func askWhetherWell(ctx context.Context, client *vault.Client) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline.Add(-time.Until(deadline)/2), vault.ErrTimeout)
		defer cancel()
	}
	return client.Well(ctx)
}

// identity is who the Source logs in as with these credentials.
func (s *Source) identity(creds credentials, proven bool) Identity {
	return Identity{Namespace: s.cfg.Namespace, Mount: s.cfg.AuthMount, RoleID: creds.roleID, SecretID: creds.secretID,
		Wrapped: s.cfg.SecretIDWrapped, Proven: proven}
}

// Identity returns who the Source logs in as: with the credentials of its last login, which are
// proven, or before the first with what the files hold now. Errors wrap vault.ErrLoginPending.
func (s *Source) Identity() (Identity, error) {
	if state := s.State(); state.LoggedIn {
		return s.identity(state.credentials, true), nil
	}
	return IdentityOf(s.cfg.Namespace, s.cfg.Role)
}

// IdentityOf returns who a Source with this role would log in as first. Errors wrap
// vault.ErrLoginPending.
func IdentityOf(namespace string, role Role) (Identity, error) {
	creds, err := loadCredentials(role.RoleID, role.SecretID)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Namespace: namespace, Mount: role.AuthMount, RoleID: creds.roleID, SecretID: creds.secretID,
		Wrapped: role.SecretIDWrapped}, nil
}
