// Command secret-sidecar resolves references to secrets in HashiCorp Vault for the workers beside
// it, over a Unix socket. See `secret-sidecar --help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	getenv := takeEnvironment()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end; a second one then kills at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, getenv))
}
