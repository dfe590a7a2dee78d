package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// results are what a run has found.
type results struct {
	Made    string // the day
	Machine string
	Each    string // the length of a measurement
	Rounds  int
	Callers []int
	Targets []target
	Load    []loadLine // durations in nanoseconds
	Growth  []growth
	Notes   []string
}

func newResults(p plan) *results {
	return &results{
		Made: time.Now().UTC().Format("2006-01-02"), Machine: machine(), Each: p.each.String(), Rounds: p.rounds, Callers: p.callers,
	}
}

// machine says where the numbers come from.
func machine() string {
	model := "unknown processor"
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	return fmt.Sprintf("%d × %s, Linux %s, %s %s/%s", runtime.NumCPU(), model, release, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// write writes the page, the same in JSON, and the charts.
func (r *results) write(page string) error {
	base := strings.TrimSuffix(page, ".md")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	var text strings.Builder
	r.writePage(&text, filepath.Base(base))
	if err := os.WriteFile(page, []byte(text.String()), 0o644); err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(base+".json", append(encoded, '\n'), 0o644); err != nil {
		return err
	}
	return r.drawCharts(base)
}

func (r *results) writePage(w io.Writer, charts string) {
	fmt.Fprintf(w, "# Benchmarks\n\nMade by `make bench` on %s: %s. Every number is the median of %d rounds of %s, interleaved; the load\n"+
		"and the servers share the machine. Compare within this page: every machine has its own numbers, and they are in\n"+
		"[benchmarks.json](benchmarks.json) too. [performance.md](performance.md) says what the measures mean, and what was done for them.\n\n",
		r.Made, r.Machine, r.Rounds, r.Each)
	fmt.Fprint(w, "## Targets\n\n| measure | value | target | |\n|---|---|---|---|\n")
	for _, one := range r.Targets {
		verdict := "met"
		if !one.isMet() {
			verdict = "**not met**"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", one.Measure, withUnit(number(one.Value), one.Unit), withUnit(one.bound(), one.Unit), verdict)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "\n%s\n", note)
	}
	fmt.Fprintf(w, "\n## Load\n\n![Throughput by callers](%[1]s/throughput.svg)\n![p99 by callers](%[1]s/p99.svg)\n\n", charts)
	fmt.Fprint(w, "| what | callers | secrets a second (least to most) | p50 | p99 | server CPU for 100,000 | server resident |\n|---|---|---|---|---|---|---|\n")
	for _, one := range r.Load {
		var rates []float64
		for _, m := range one.Rounds {
			rates = append(rates, m.PerSecond)
		}
		rate := spreadOf(rates)
		cpu, memory := "", ""
		if median(cpuTime, one.Rounds) > 0 {
			cpu = median(cpuTime, one.Rounds).Round(10 * time.Millisecond).String()
			memory = withUnit(number(median(resident, one.Rounds)), "MB")
		}
		fmt.Fprintf(w, "| %s | %d | %s (%s to %s) | %v | %v | %s | %s |\n", one.Subject, one.Callers, number(rate.Median), number(rate.Least), number(rate.Most),
			median(p50, one.Rounds).Round(time.Microsecond), median(p99, one.Rounds).Round(time.Microsecond), cpu, memory)
	}
	fmt.Fprint(w, "\n## Cost as it grows\n")
	for _, g := range r.Growth {
		fmt.Fprintf(w, "\n### %s\n\n![%[1]s](%s/%s.svg)\n\n| %s | %s |\n|%s\n", g.Title, charts, g.file(), g.X, strings.Join(g.Columns, " | "),
			strings.Repeat("---|", len(g.Columns)+1))
		for _, one := range g.Points {
			fmt.Fprintf(w, "| %s |", number(one.X))
			for _, value := range one.Values {
				fmt.Fprintf(w, " %s |", number(value))
			}
			fmt.Fprintln(w)
		}
	}
}

// file is the name of the growth's chart.
func (g growth) file() string {
	return strings.ReplaceAll(g.X, " ", "-")
}

func withUnit(number, unit string) string { return strings.TrimSpace(number + " " + unit) }

// number shows three digits that count, and thousands in full.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	switch {
	case math.Abs(v) >= 100:
		return grouped(int64(math.Round(v)))
	case math.Abs(v) >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
