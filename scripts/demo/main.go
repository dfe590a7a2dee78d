// Command demo shows secret-sidecar at work: it starts a Vault and the sidecar, runs the commands
// that a person would, prints them with what they answered, and checks that each showed what it
// should. It exits 0 only then, and leaves no process and no file behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// patience bounds the whole demo.
const patience = 90 * time.Second

func main() {
	kind := flag.String("vault", "dev",
		"which Vault: dev (embedded in the sidecar) or real (a vault server)")
	binary := flag.String("binary", "bin/secret-sidecar", "the built secret-sidecar")
	flag.Parse()
	// A reader of the transcript that leaves early must not end the demo before it has cleaned up.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, patience)
	err := run(ctx, *kind, *binary)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run owns everything that the demo starts and writes, and removes it on the way out.
func run(ctx context.Context, kind, binary string) (err error) {
	program, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	directory, err := os.MkdirTemp("", "secret-sidecar-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	stage := &stage{directory: directory, program: program,
		socket: filepath.Join(directory, "sidecar.sock")}
	defer stage.clear()
	switch kind {
	case "dev":
		err = stage.startDev(ctx)
	case "real":
		err = stage.startReal(ctx)
	default:
		return fmt.Errorf("unknown -vault %q: use dev or real", kind)
	}
	if err != nil {
		return err
	}
	return play(ctx, stage)
}
