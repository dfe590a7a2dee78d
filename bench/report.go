package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// median returns the middle one by what less compares; sorted is left sorted.
func median[T cmp.Ordered](of func(measurement) T, all []measurement) (middle, least, most T) {
	var values []T
	for _, one := range all {
		values = append(values, of(one))
	}
	slices.Sort(values)
	return values[len(values)/2], values[0], values[len(values)-1]
}

func perSecond(m measurement) float64   { return m.PerSecond }
func p99(m measurement) time.Duration   { return m.P99 }
func p50(m measurement) time.Duration   { return m.P50 }
func cpuOf(m measurement) time.Duration { return m.CPU }

// ratio is one line of what the project promises of its speed.
type ratio struct {
	Measure string
	Value   float64
	Target  string
}

// ratios compares medians of one run.
func ratios(results map[key][]measurement) []ratio {
	rate := func(subject string, callers int) float64 {
		m, _, _ := median(perSecond, results[key{subject, callers}])
		return m
	}
	tail := func(subject string, callers int) float64 {
		m, _, _ := median(p99, results[key{subject, callers}])
		return float64(m)
	}
	cpu := func(subject string, callers int) float64 {
		m, _, _ := median(cpuOf, results[key{subject, callers}])
		return float64(m)
	}
	return []ratio{
		{"cached Resolve throughput / echo, 64 callers", rate("cached Resolve", 64) / rate("echo", 64), "at least 0.95"},
		{"server CPU of a cached Resolve / echo, 64 callers", cpu("cached Resolve", 64) / cpu("echo", 64), "at most 1.10"},
		{"p99 of a cached Resolve / echo, 16 callers", tail("cached Resolve", 16) / tail("echo", 16), "at most 1.15"},
		{"secrets a second, BatchResolve of 10 / Resolve, 16 callers", rate("BatchResolve of 10", 16) / rate("cached Resolve", 16), "at least 6"},
		{"cached Resolve throughput / vault/api without a sidecar, 16 callers", rate("cached Resolve", 16) / rate("vault/api, Vault 0 ms", 16), "-"},
	}
}

// report prints the ratios, and writes the whole report where the plan says.
func report(p plan, s *stage, results map[key][]measurement) error {
	all := ratios(results)
	for _, one := range all {
		fmt.Printf("%-70s %5.2f   (%s)\n", one.Measure, one.Value, one.Target)
	}
	fmt.Printf("%-70s %5.0f ms (at most 60)\n", "process start to socket answering", float64(s.started.Milliseconds()))
	fmt.Printf("%-70s %5.0f MB\n", "resident memory after the run", float64(s.sidecar.resident())/(1<<20))
	if p.report == "" {
		return nil
	}
	var page strings.Builder
	writePage(&page, p, s, results, all)
	if err := os.WriteFile(p.report, []byte(page.String()), 0o644); err != nil {
		return err
	}
	return writeJSON(strings.TrimSuffix(p.report, ".md")+".json", p, results, all)
}

func writePage(w io.Writer, p plan, s *stage, results map[key][]measurement, all []ratio) {
	fmt.Fprintf(w, "# Benchmarks\n\nMade by `make bench` on %s, %d processors, %s, %s/%s. Medians of %d rounds of %v, with the least and the most.\n"+
		"Compare within this page: every machine has its own numbers.\n\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, p.rounds, p.each)
	fmt.Fprint(w, "| measure | ratio | target |\n|---|---|---|\n")
	for _, one := range all {
		fmt.Fprintf(w, "| %s | %.2f | %s |\n", one.Measure, one.Value, one.Target)
	}
	fmt.Fprintf(w, "| process start to socket answering | %d ms | at most 60 ms |\n", s.started.Milliseconds())
	fmt.Fprintf(w, "| resident memory after the run | %d MB | |\n", s.sidecar.resident()>>20)
	fmt.Fprint(w, "\n| what | callers | secrets a second | p50 | p99 | server CPU for 100,000 |\n|---|---|---|---|---|---|\n")
	for _, subject := range s.subjects {
		for _, callers := range p.callers {
			measured := results[key{subject.name, callers}]
			rate, least, most := median(perSecond, measured)
			middle, _, _ := median(p50, measured)
			tail, _, _ := median(p99, measured)
			cpu, _, _ := median(cpuOf, measured)
			fmt.Fprintf(w, "| %s | %d | %.0f (%.0f to %.0f) | %v | %v | %v |\n", subject.name, callers, rate, least, most,
				middle.Round(time.Microsecond), tail.Round(time.Microsecond), cpu.Round(10*time.Millisecond))
		}
	}
}

// line is one measurement of the report in JSON, with durations in nanoseconds.
type line struct {
	Subject string
	Callers int
	Rounds  []measurement
}

func writeJSON(name string, p plan, results map[key][]measurement, all []ratio) error {
	var lines []line
	for k, rounds := range results {
		lines = append(lines, line{k.subject, k.callers, rounds})
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Callers, b.Callers))
	})
	text, err := json.MarshalIndent(map[string]any{"rounds": p.rounds, "each": p.each, "ratios": all, "measurements": lines}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}
