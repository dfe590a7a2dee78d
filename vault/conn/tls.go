package conn

import (
	"context"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/filewatch"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// tlsRetryPause is how often TLS files that do not work yet are tried again.
const tlsRetryPause = 5 * time.Second

// watchTLS picks up replaced TLS files until ctx ends.
func (c *Connection) watchTLS(ctx context.Context, cfg Config) {
	files := cfg.TLS.Files()
	if len(files) == 0 {
		return
	}
	watch := cfg.watch
	if watch == nil {
		watch = filewatch.New(files).Run
	}
	c.loops.Go(func() { watch(ctx, func() { notify(c.tlsChanged) }) })
	c.loops.Go(func() { c.reloadTLS(ctx) })
}

// reloadTLS tries changed files until they work: half of a pair may not be replaced yet, or Vault
// may be out.
func (c *Connection) reloadTLS(ctx context.Context) {
	for c.awaitTLSChange(ctx) {
		for warned := false; ctx.Err() == nil && !c.takeUpTLS(ctx, &warned); {
			c.awaitTLSRetry(ctx)
		}
	}
}

func (c *Connection) awaitTLSChange(ctx context.Context) bool {
	select {
	case <-c.tlsChanged:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Connection) awaitTLSRetry(ctx context.Context) {
	timer := time.NewTimer(tlsRetryPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.tlsChanged:
	case <-ctx.Done():
	}
}

// takeUpTLS tries the files and reports whether what they hold is in use.
func (c *Connection) takeUpTLS(ctx context.Context, warned *bool) bool {
	ctx, cancel := c.operation(ctx)
	defer cancel()
	changed, err := c.vault.ReloadTLS(ctx)
	switch {
	case changed:
		c.log.Info("the changed TLS files are in use from now on")
		c.login.Wake()
	case err != nil && !*warned:
		*warned = true
		c.log.Warn("the changed TLS files do not work yet, what was used before stays in use", vault.Attrs(err)...)
	case err != nil:
		c.log.Debug("the changed TLS files do not work yet", vault.DebugAttrs(err)...)
	}
	return err == nil
}
