// Bench measures the sidecar against a bare gRPC server and against Vault itself, on one machine in one run: `make
// bench` and `make bench-quick`. Every server is a process of its own, the load comes from this one, and rounds are
// interleaved, so that what slows the machine down slows all of them down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// plan says what to measure, and for how long.
type plan struct {
	binary  string
	rounds  int
	each    time.Duration // one measurement
	callers []int
	report  string // the file of the report; empty prints its ratios alone
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		exitOn(serve(os.Args[2:]))
		return
	}
	var p plan
	quick := flag.Bool("quick", false, "measure for less than a minute, and print the ratios alone")
	flag.StringVar(&p.binary, "binary", "bin/secret-sidecar", "the sidecar to measure")
	flag.IntVar(&p.rounds, "rounds", 7, "rounds, of which the median is reported")
	flag.DurationVar(&p.each, "each", time.Second, "how long one measurement takes")
	flag.StringVar(&p.report, "report", "", "file to write the report to, in Markdown; beside it, in JSON")
	flag.Parse()
	p.callers = []int{1, 16, 64, 256}
	if *quick {
		p.rounds, p.each, p.callers = 3, 500*time.Millisecond, []int{16, 64}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	exitOn(run(ctx, p))
}

// exitOn ends the process with 1 for an error.
func exitOn(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func run(ctx context.Context, p plan) error {
	stage, err := newStage(ctx, p.binary)
	if err != nil {
		return err
	}
	defer stage.close()
	results := map[key][]measurement{}
	for round := range p.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, p.rounds)
		for _, callers := range p.callers {
			for _, subject := range stage.subjects {
				one, err := measure(ctx, subject, callers, p.each)
				if err != nil {
					return fmt.Errorf("%s with %d callers: %w", subject.name, callers, err)
				}
				k := key{subject.name, callers}
				results[k] = append(results[k], one)
			}
		}
	}
	return report(p, stage, results)
}
