package login

import (
	"context"
	"crypto/sha256"
	"errors"

	"golang.org/x/sync/semaphore"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// unwrapped is what a wrapping token held. It is kept as long as the process runs: the token cannot
// be used again, and a reload or a test must not try.
type unwrapped struct {
	busy     *semaphore.Weighted // weight 1; guards secretID
	secretID redact.String       // empty until unwrapped
}

// unwrap returns the secret_id behind a wrapping token, asking Vault only the first time. Errors:
// those of vault.Client.UnwrapSecretID.
func (b *Budget) unwrap(ctx context.Context, client *vault.Client, wrappingToken redact.String) (redact.String, error) {
	key := sha256.Sum256([]byte(wrappingToken.Reveal()))
	entry := b.unwrappedEntry(key)
	if err := entry.busy.Acquire(ctx, 1); err != nil {
		return redact.String{}, ended(ctx)
	}
	defer entry.busy.Release(1)
	if !entry.secretID.IsEmpty() {
		return entry.secretID, nil
	}
	secretID, err := client.UnwrapSecretID(ctx, wrappingToken)
	if errors.Is(err, vault.ErrLoginRejected) {
		b.forgetUnwrapped(key) // there is nothing to keep
	}
	entry.secretID = secretID
	return secretID, err
}

func (b *Budget) forgetUnwrapped(key [32]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.unwrapped, key)
}

func (b *Budget) unwrappedEntry(key [32]byte) *unwrapped {
	b.mu.Lock()
	defer b.mu.Unlock()
	entry := b.unwrapped[key]
	if entry == nil {
		entry = &unwrapped{busy: semaphore.NewWeighted(1)}
		b.unwrapped[key] = entry
	}
	return entry
}
