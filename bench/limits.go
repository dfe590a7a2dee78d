package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// measureCalls counts what a cached Resolve costs the server besides time.
func measureCalls(ctx context.Context, s *stage, p plan, r *results) error {
	say("allocations and goroutine switches of a call")
	hosted, clients, err := s.startHosted(ctx, 0)
	if err != nil {
		return err
	}
	defer hosted.stop()
	hits := requests("few", usualSize, 0, usual)
	costs := map[*process]*[2][]float64{hosted: {}, s.bare: {}}
	for range p.rounds {
		for server, call := range map[*process]func(context.Context, int, int) error{
			hosted: resolve(clients, hits), s.bare: echoed(s.echo, hits),
		} {
			allocations, switches, err := costOfCalls(ctx, server, call)
			if err != nil {
				return err
			}
			costs[server][0] = append(costs[server][0], allocations)
			costs[server][1] = append(costs[server][1], switches)
		}
	}
	allocations, bareAllocations := spreadOf(costs[hosted][0]).Median,
		spreadOf(costs[s.bare][0]).Median
	switches, bareSwitches := spreadOf(costs[hosted][1]).Median, spreadOf(costs[s.bare][1]).Median
	r.Targets = append(r.Targets, target{
		Measure: "allocations per cached Resolve above echo, 64 callers",
		Value:   allocations - bareAllocations, AtMost: 6})
	r.Notes = append(r.Notes,
		fmt.Sprintf("A cached Resolve takes %.1f allocations and %.2f goroutine switches of the "+
			"server, the echo %.1f and %.2f (64 callers).",
			allocations, switches, bareAllocations, bareSwitches))
	return nil
}

// costOfCalls returns the allocations and the goroutine switches of one call.
func costOfCalls(ctx context.Context, server *process,
	call func(context.Context, int, int) error) (allocations, switches float64, err error) {
	const callers, turns = 64, 500
	if err := drive(ctx, call, callers, times(turns/10), nil); err != nil {
		return 0, 0, err
	}
	before, err := server.stats(ctx, false)
	if err != nil {
		return 0, 0, err
	}
	if err := drive(ctx, call, callers, times(turns), nil); err != nil {
		return 0, 0, err
	}
	after, err := server.stats(ctx, false)
	const calls = callers * turns
	return float64(after.Mallocs-before.Mallocs) / calls,
		float64(after.Switches-before.Switches) / calls, err
}

// measureMemory measures the product's resident memory.
func measureMemory(ctx context.Context, s *stage, _ plan, r *results) error {
	say("memory, idle and after 1,000,000 calls")
	sidecar, clients, err := s.startSidecar(ctx, "connections:\n"+connection("quick", s.quick))
	if err != nil {
		return err
	}
	defer sidecar.stop()
	settle(ctx)
	idle := sidecar.resident()
	const cached, callers, calls = 10_000, 64, 1_000_000
	all := requests("quick", usualSize, 0, cached)
	if err := drive(ctx, resolve(clients, all), callers, times(calls/callers), nil); err != nil {
		return err
	}
	info, err := os.Stat(s.binary)
	if err != nil {
		return err
	}
	r.Targets = append(r.Targets,
		target{Measure: "resident memory, idle", Value: idle, Unit: "MB", AtMost: 25},
		target{Measure: "the same with 10,000 secrets of 256 B after 1,000,000 calls",
			Value: sidecar.resident(), Unit: "MB", AtMost: 45},
		target{Measure: "stripped binary", Value: float64(info.Size()) / 1e6, Unit: "MB",
			AtMost: 25})
	return nil
}

// settle waits for what a process still does just after its start.
func settle(ctx context.Context) {
	timer := time.NewTimer(2 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// measureStart measures from the start of the process to the first answer.
func measureStart(ctx context.Context, s *stage, p plan, r *results) error {
	say("start")
	var all []float64
	for range max(p.rounds, 7) {
		began := time.Now()
		sidecar, socket, err := s.launch("connections:\n" + connection("quick", s.quick))
		if err != nil {
			return err
		}
		if err := answers(ctx, socket, "liveness"); err != nil {
			return err
		}
		all = append(all, millis(time.Since(began)))
		sidecar.stop()
	}
	r.Targets = append(r.Targets, target{Measure: "process start to socket answering",
		Value: spreadOf(all).Median, Unit: "ms", AtMost: 60})
	return nil
}

// burst is how many callers miss one secret at once: as many as may wait by default.
const burst = 10_000

// measureBurst lets 10,000 callers ask for one secret that is not cached. Besides Vault they wait
// for each other; the same burst on the echo shows how long that takes.
func measureBurst(ctx context.Context, s *stage, p plan, r *results) error {
	say("10,000 callers miss one secret")
	const latency = 500 * time.Millisecond
	var distant vaultReady
	if _, err := s.startVault(&distant, latency.String()); err != nil {
		return err
	}
	sidecar, _, err := s.startSidecar(ctx, "connections:\n"+connection("distant", distant))
	if err != nil {
		return err
	}
	defer sidecar.stop()
	clients, err := s.dial(s.lastSocket(), burst/500)
	if err != nil {
		return err
	}
	var ratios, reads, tails, queues []float64
	for round := range p.rounds {
		queue := make([][]time.Duration, burst)
		if err := drive(ctx, echoed(s.echo, requests("", usualSize, 0, 1)), burst, times(1),
			queue); err != nil {
			return err
		}
		before, err := readsOf(ctx, distant)
		if err != nil {
			return err
		}
		took := make([][]time.Duration, burst)
		if err := drive(ctx, resolve(clients, requests("distant", usualSize, round, 1)), burst,
			times(1), took); err != nil {
			return err
		}
		after, err := readsOf(ctx, distant)
		if err != nil {
			return err
		}
		tail, queued := sorted(took)[burst*99/100], sorted(queue)[burst*99/100]
		tails, queues = append(tails, millis(tail)), append(queues, millis(queued))
		ratios = append(ratios, float64(tail-queued)/float64(latency))
		reads = append(reads, float64(after-before))
	}
	r.Targets = append(r.Targets,
		target{Measure: "Vault reads for 10,000 concurrent misses of one secret, the most of all " +
			"rounds", Value: spreadOf(reads).Most, AtMost: 1},
		target{Measure: "their p99, less that of the same burst on the echo / Vault's latency",
			Value: spreadOf(ratios).Median, AtMost: 1.5})
	r.Notes = append(r.Notes,
		fmt.Sprintf("The p99 of 10,000 concurrent misses of one secret is %.0f ms with a Vault "+
			"that takes %d ms; 10,000 concurrent calls of the echo have a p99 of %.0f ms, which "+
			"is what the callers wait for each other.",
			spreadOf(tails).Median, latency.Milliseconds(), spreadOf(queues).Median))
	return nil
}
