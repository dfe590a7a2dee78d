// Command licenses writes the licences and notices of all that secret-sidecar links into the file
// that the program embeds and the image holds. With -check it compares that file with what it
// would write. It fails for a module without a licence, with one that the classifier does not know,
// and with one that this project does not allow. It runs in the root of the project.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

// target is what the program embeds.
const target = "cmd/secret-sidecar/THIRD_PARTY_LICENSES"

func main() {
	check := flag.Bool("check", false, "say whether "+target+" is current, and write nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *check)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, check bool) error {
	linked, err := linkedPackages(ctx, "./cmd/secret-sidecar")
	if err != nil {
		return err
	}
	parts, err := partsOf(linked)
	if err != nil {
		return err
	}
	if err := classify(parts); err != nil {
		return err
	}
	standard, err := standardLibrary(ctx)
	if err != nil {
		return err
	}
	text, err := render(append([]*part{standard}, parts...))
	if err != nil {
		return err
	}
	if check {
		return compare(text)
	}
	return os.WriteFile(target, text, 0o644) // #nosec G306 -- for everyone
}

func compare(text []byte) error {
	there, err := os.ReadFile(target)
	if err != nil {
		return err
	}
	if !bytes.Equal(there, text) {
		return errors.New(target +
			" is not what the program links: run `make licenses` and commit it")
	}
	return nil
}
