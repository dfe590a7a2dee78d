package main

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// subject is something to measure: a call, and the process that answers it.
type subject struct {
	name    string
	secrets int      // how many of them one call resolves
	process *process // nil: it is not known what answers
	call    func(ctx context.Context, caller, turn int) error
}

// measurement is the result of one subject over some time.
type measurement struct {
	PerSecond float64       // secrets
	P50, P99  time.Duration // of a call
	CPU       time.Duration // of the server, for 100,000 secrets; 0 where it is not known
	RSS       float64       // of the server at the end, in MB; 0 where it is not known
}

// measure makes callers call in a closed loop: each calls again once it is answered.
func measure(ctx context.Context, s subject, callers int, each time.Duration) (measurement, error) {
	if err := drive(ctx, s.call, callers, until(each/10), nil); err != nil { // warm up
		return measurement{}, err
	}
	took := make([][]time.Duration, callers)
	before, began := s.process.cpu(), time.Now()
	if err := drive(ctx, s.call, callers, until(each), took); err != nil {
		return measurement{}, err
	}
	elapsed, cpu := time.Since(began), s.process.cpu()-before
	all := sorted(took)
	resolved := len(all) * s.secrets
	return measurement{
		PerSecond: float64(resolved) / elapsed.Seconds(),
		P50:       all[len(all)/2], P99: all[len(all)*99/100],
		CPU: time.Duration(float64(cpu) * 100_000 / float64(resolved)),
		RSS: s.process.resident(),
	}, nil
}

func sorted(took [][]time.Duration) []time.Duration {
	all := slices.Concat(took...)
	slices.Sort(all)
	return all
}

// until returns a condition that holds for this long.
func until(each time.Duration) func(turn int, now time.Time) bool {
	end := time.Now().Add(each)
	return func(_ int, now time.Time) bool { return now.Before(end) }
}

// times returns a condition that holds for this many calls of each caller.
func times(n int) func(turn int, now time.Time) bool {
	return func(turn int, _ time.Time) bool { return turn < n }
}

// drive runs the callers while the condition holds. With took, it keeps how long each call took.
func drive(ctx context.Context, call func(context.Context, int, int) error, callers int,
	more func(int, time.Time) bool, took [][]time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for turn := 0; ; turn++ {
				began := time.Now()
				if !more(turn, began) || ctx.Err() != nil {
					return
				}
				if err := call(ctx, caller, turn); err != nil {
					cancel(err)
					return
				}
				if took != nil {
					took[caller] = append(took[caller], time.Since(began))
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// spread is a median with the least and the most.
type spread struct{ Median, Least, Most float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	slices.Sort(values)
	return spread{values[len(values)/2], values[0], values[len(values)-1]}
}

// interleave measures the subjects in turn, round by round, and returns every subject's rounds.
func interleave(ctx context.Context, subjects []subject, callers, rounds int,
	each time.Duration) ([][]measurement, error) {
	all := make([][]measurement, len(subjects))
	for range rounds {
		for i, one := range subjects {
			m, err := measure(ctx, one, callers, each)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], m)
		}
	}
	return all, nil
}

// median returns the median of a number of each measurement.
func median[T cmp.Ordered](of func(measurement) T, all []measurement) T {
	var none T
	if len(all) == 0 {
		return none
	}
	numbers := make([]T, len(all))
	for i, one := range all {
		numbers[i] = of(one)
	}
	slices.Sort(numbers)
	return numbers[len(numbers)/2]
}

func perSecond(m measurement) float64     { return m.PerSecond }
func p50(m measurement) time.Duration     { return m.P50 }
func p99(m measurement) time.Duration     { return m.P99 }
func cpuTime(m measurement) time.Duration { return m.CPU }
func resident(m measurement) float64      { return m.RSS }
func micros(d time.Duration) float64      { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64      { return float64(d) / float64(time.Millisecond) }
