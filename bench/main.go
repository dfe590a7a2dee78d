// Bench measures the sidecar against a bare gRPC server, against Vault itself and against Vault
// Proxy, on one machine in one run: `make bench`, `make bench-quick`, `make bench-coldstart` and
// `make profile`. Every server is a process of its own, the load comes from this one, and rounds
// are interleaved, so that what slows the machine down slows all of them down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// plan says what to measure, and for how long.
type plan struct {
	binary  string // the sidecar
	vault   string // the real Vault; empty: there is none
	quick   bool
	rounds  int
	each    time.Duration // one measurement
	callers []int
	report  string // the file of the report
	profile string // the directory of the profiles; empty: measure instead

	profileFor time.Duration // the CPU's

	draw bool // draw the kept numbers again instead of measuring

	clients bool // measure the client libraries alone

	coldStart bool // measure starts alone
	starts    int  // how many of each
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		exitOn(serve(os.Args[2:]))
		return
	}
	var p plan
	flag.StringVar(&p.binary, "binary", "bin/secret-sidecar", "the sidecar to measure")
	flag.StringVar(&p.vault, "vault", "",
		"the real Vault, for Vault Proxy; left out where there is no such file")
	flag.BoolVar(&p.quick, "quick", false,
		"measure for less than a minute, and print the first ratios alone")
	flag.IntVar(&p.rounds, "rounds", 7, "rounds, of which the median is reported")
	flag.DurationVar(&p.each, "each", time.Second, "how long one measurement takes")
	flag.StringVar(&p.report, "report", "docs/benchmarks.md",
		"file to write the report to, in Markdown; beside it, in JSON and with its charts")
	flag.BoolVar(&p.draw, "draw", false,
		"draw the report again from its kept numbers, and measure nothing")
	flag.StringVar(&p.profile, "profile", "",
		"directory to write profiles of the server to, instead of measuring")
	flag.DurationVar(&p.profileFor, "profile-for", 10*time.Second,
		"how long to profile the CPU, in full seconds")
	flag.BoolVar(&p.clients, "clients", false,
		"measure the client libraries alone, and put them into the report")
	flag.BoolVar(&p.coldStart, "coldstart", false,
		"measure starts alone, and print them in Markdown")
	flag.IntVar(&p.starts, "starts", 30, "how many starts of each kind -coldstart measures")
	flag.Parse()
	if p.draw {
		exitOn(redraw(p.report))
		return
	}
	p.callers = []int{1, 16, 64, 256}
	if p.quick {
		p.rounds, p.each, p.callers = 3, 500*time.Millisecond, []int{16, 64}
	}
	if _, err := os.Stat(p.vault); err != nil {
		p.vault = ""
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
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
	s, err := newStage(p)
	if err != nil {
		return err
	}
	defer s.close()
	switch {
	case p.profile != "":
		return profile(ctx, s, p)
	case p.coldStart:
		return measureColdStarts(ctx, s, p, os.Stdout)
	case p.clients:
		found, err := measureClients(ctx, s, p)
		if err != nil {
			return err
		}
		printTargets(found.Targets)
		return keepClients(p.report, found)
	case p.quick:
		load, err := measureLoad(ctx, s, p)
		if err != nil {
			return err
		}
		printTargets(loadTargets(load))
		return nil
	}
	r, err := measureAll(ctx, s, p)
	if err != nil {
		return err
	}
	printTargets(r.Targets)
	if kept, err := readResults(p.report); err == nil {
		r.Clients = kept.Clients // make bench-clients measures them
	}
	return r.write(p.report)
}

// measureAll is the whole of `make bench`.
func measureAll(ctx context.Context, s *stage, p plan) (*results, error) {
	r := newResults(p)
	load, err := measureLoad(ctx, s, p)
	if err != nil {
		return nil, err
	}
	r.Load, r.Targets = load, loadTargets(load)
	for _, part := range []func(context.Context, *stage, plan, *results) error{
		measureCalls, measureMemory, measureStart, measureBurst,
		growSecrets, growConnections, growClients, growValues, growBatches,
	} {
		if err := part(ctx, s, p, r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
