package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// key is what measurements are of.
type key struct {
	subject string
	callers int
}

// measurement is what one subject did for a while.
type measurement struct {
	PerSecond float64       // secrets
	P50, P99  time.Duration // of a call
	CPU       time.Duration // of the server, for 100,000 secrets; 0 where there is none
}

// measure lets callers call in a closed loop, each as soon as it is answered.
func measure(ctx context.Context, s subject, callers int, each time.Duration) (measurement, error) {
	if err := drive(ctx, s, callers, each/10, nil); err != nil { // warm up
		return measurement{}, err
	}
	took := make([][]time.Duration, callers)
	before, began := s.process.cpu(), time.Now()
	if err := drive(ctx, s, callers, each, took); err != nil {
		return measurement{}, err
	}
	elapsed, cpu := time.Since(began), s.process.cpu()-before
	all := slices.Concat(took...)
	slices.Sort(all)
	resolved := len(all) * s.secrets
	return measurement{
		PerSecond: float64(resolved) / elapsed.Seconds(),
		P50:       all[len(all)/2], P99: all[len(all)*99/100],
		CPU: time.Duration(float64(cpu) * 100_000 / float64(resolved)),
	}, nil
}

// drive runs the callers, and keeps how long each call took where took is given.
func drive(ctx context.Context, s subject, callers int, each time.Duration, took [][]time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	end := time.Now().Add(each)
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for turn := 0; ; turn++ {
				began := time.Now()
				if began.After(end) || ctx.Err() != nil {
					return
				}
				if err := s.call(ctx, caller, turn); err != nil {
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

// ticksPerSecond is the unit of CPU time in /proc on every Linux of today; see proc(5).
const ticksPerSecond = 100

// cpu returns the CPU time that the process has used; 0 for none.
func (p *process) cpu() time.Duration {
	if p == nil {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), ") ") // the name before it may hold anything
	fields := strings.Fields(after)
	const utime, stime = 11, 12
	var ticks int64
	for _, field := range []int{utime, stime} {
		n, _ := strconv.ParseInt(fields[field], 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// resident returns the memory that the process has, in bytes.
func (p *process) resident() int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.command.Process.Pid))
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
