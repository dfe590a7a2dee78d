// Command outagepicture runs a sidecar through an outage of its Vault, under load, and draws what
// its metrics say. It keeps the numbers beside the picture, so that -draw can draw them again.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// The play: all is well, then Vault answers nobody, then all is well again.
const (
	outageBegins = 10 * time.Second
	outageEnds   = 20 * time.Second
	playEnds     = 32 * time.Second
	scrapeEvery  = 500 * time.Millisecond
)

func main() {
	binary := flag.String("binary", "bin/secret-sidecar", "the sidecar")
	file := flag.String("picture", "docs/observability/outage.svg", "the file to draw into")
	redraw := flag.Bool("draw", false,
		"draw the numbers of an earlier play again, and play nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var err error
	if !*redraw {
		err = play(ctx, *binary, *file)
	}
	stop()
	if err == nil {
		err = draw(*file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "outagepicture:", err)
		os.Exit(1)
	}
}

// play runs the play, and keeps what is to be drawn of it.
func play(ctx context.Context, binary, file string) error {
	directory, err := os.MkdirTemp("", "ss")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(directory) }()
	vault, err := startVault(ctx)
	if err != nil {
		return err
	}
	defer vault.leave()
	sidecar, err := startSidecar(ctx, binary, directory, vault)
	if err != nil {
		return err
	}
	defer sidecar.end()
	load, err := startLoad(ctx, sidecar.socket)
	if err != nil {
		return err
	}
	defer load.end()
	fmt.Printf("playing for %v\n", playEnds)
	samples, err := watch(ctx, sidecar, vault)
	if err != nil {
		return err
	}
	return keep(file, momentsOf(samples))
}

// watch scrapes the sidecar's metrics while Vault goes and comes back.
func watch(ctx context.Context, s *sidecar, v *vault) ([]sample, error) {
	began := time.Now()
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	away := time.AfterFunc(outageBegins, v.leave)
	defer away.Stop()
	back := time.NewTimer(outageEnds)
	defer back.Stop()
	var samples []sample
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-back.C:
			if err := v.comeBack(ctx); err != nil {
				return nil, err
			}
		case now := <-tick.C:
			one, err := s.scrape(ctx)
			if err != nil {
				return nil, err
			}
			one.at = now.Sub(began)
			samples = append(samples, one)
			if one.at > playEnds {
				return samples, nil
			}
		}
	}
}
