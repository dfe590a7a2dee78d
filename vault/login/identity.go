package login

import (
	"cmp"
	"context"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// Identity says who logs in, and where.
type Identity struct {
	vault.Identity
	// Namespace is that of the auth method.
	Namespace string
	// Wrapped says that SecretID is a response-wrapping token.
	Wrapped bool
	// Proven says that Vault has accepted these before.
	Proven bool
}

// LogIn logs in as the identity and returns the token, within the Budget. After a login whose
// answer was lost it first asks whether Vault is well. Errors: those of vault.Client.Login and
// UnwrapSecretID; vault.ErrLoginRejected, with RetryAfter, when the Budget is spent.
func (b *Budget) LogIn(ctx context.Context, client *vault.Client, who Identity) (*vault.Token, error) {
	attempt, err := b.begin(ctx, client, &who)
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
	token, fate, err := client.Login(ctx, who.Identity)
	return token, err
}

// begin unwraps what is wrapped, and reserves an attempt.
func (b *Budget) begin(ctx context.Context, client *vault.Client, who *Identity) (attempt, error) {
	role := newTarget(*who)
	if who.Wrapped {
		var err error
		if who.SecretID, err = b.unwrap(ctx, client, who.SecretID); err != nil {
			return attempt{}, err
		}
	}
	return b.reserve(ctx, role, who.Proven)
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
	return identity(s.cfg.Namespace, s.cfg.Role, creds, proven)
}

func identity(namespace string, role Role, creds credentials, proven bool) Identity {
	return Identity{
		Identity: vault.Identity{Method: role.Method, Mount: role.Mount(), RoleID: creds.roleID, SecretID: creds.secretID,
			Role: role.RoleName, JWT: creds.jwt},
		Namespace: cmp.Or(role.AuthNamespace, namespace), Wrapped: role.SecretIDWrapped, Proven: proven,
	}
}

// Identity returns who the Source logs in as: with the credentials of its last login, which are
// proven. Before the first login, and where credentials change by themselves, it takes what the
// files hold now. Errors wrap vault.ErrLoginPending.
func (s *Source) Identity() (Identity, error) {
	state := s.State()
	if state.LoggedIn && !s.cfg.isOwn() {
		return s.identity(state.credentials, true), nil
	}
	who, err := IdentityOf(s.cfg.Namespace, s.cfg.Role)
	who.Proven = state.LoggedIn
	return who, err
}

// IdentityOf returns who a Source with this role would log in as first. Errors wrap
// vault.ErrLoginPending.
func IdentityOf(namespace string, role Role) (Identity, error) {
	creds, err := loadCredentials(role, "")
	if err != nil {
		return Identity{}, err
	}
	return identity(namespace, role, creds, false), nil
}
