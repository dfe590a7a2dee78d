// Command secret-sidecar resolves references to secrets in HashiCorp Vault for the workers beside
// it, over a Unix socket. See `secret-sidecar --help`.
//
// This package alone reads the environment, handles signals and exits; everything else gets what it
// needs as arguments. Each command has a file of its own. `serve` (serve.go) wires config, server,
// vault and telemetry together, and reload.go applies changes of the file. The commands that ask a
// running sidecar share client.go. Answers go to standard output, every remark about them to
// standard error, so that scripts can read the first and people the second.
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
