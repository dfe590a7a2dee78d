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

	"github.com/secret-sidecar/secret-sidecar/internal/chart"
)

// results are everything that one run measured.
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
	Clients *clientResults `json:",omitempty"`
}

func newResults(p plan) *results {
	return &results{
		Made: time.Now().UTC().Format("2006-01-02"), Machine: machine(), Each: p.each.String(),
		Rounds: p.rounds, Callers: p.callers,
	}
}

// machine describes where the numbers come from.
func machine() string {
	model := "unknown processor"
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok &&
			strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	return fmt.Sprintf("%d × %s, Linux %s, %s %s/%s", runtime.NumCPU(), model, release,
		runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// write saves the numbers as JSON, and draws them.
func (r *results) write(page string) error {
	encoded, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encode the results: %w", err)
	}
	if err := os.WriteFile(numbersOf(page), append(encoded, '\n'), 0o644); err != nil {
		return fmt.Errorf("keep the results: %w", err)
	}
	return r.draw(page)
}

// numbersOf is the file of the numbers that a page shows.
func numbersOf(page string) string { return strings.TrimSuffix(page, ".md") + ".json" }

// redraw draws the page and its charts again, from the saved numbers.
func redraw(page string) error {
	r, err := readResults(page)
	if err != nil {
		return err
	}
	return r.draw(page)
}

// readResults reads the numbers that were kept.
func readResults(page string) (*results, error) {
	text, err := os.ReadFile(numbersOf(page))
	if err != nil {
		return nil, fmt.Errorf("read the numbers of an earlier run: %w", err)
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read the numbers in %s: %w", numbersOf(page), err)
	}
	return &r, nil
}

// keepClients puts the client libraries' numbers into a report that there is.
func keepClients(page string, found *clientResults) error {
	r, err := readResults(page)
	if err != nil {
		return err
	}
	r.Clients = found
	return r.write(page)
}

// draw writes the page and its charts.
func (r *results) draw(page string) error {
	charts := strings.TrimSuffix(page, ".md")
	if err := os.MkdirAll(charts, 0o755); err != nil {
		return fmt.Errorf("make a place for the charts: %w", err)
	}
	var text strings.Builder
	r.writePage(&text, filepath.Base(charts))
	if err := os.WriteFile(page, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return r.drawCharts(charts)
}

// shownCallers is the number of callers whose load the page lists. The charts and the JSON have the
// others too.
const shownCallers = 16

func (r *results) writePage(w io.Writer, charts string) {
	fmt.Fprintf(w, `# Benchmarks

Made by `+"`make bench`"+` on %s: %s.
Every number is the median of %d rounds of %s, interleaved. The load and the servers share the
machine, so compare within this page only. [benchmarks.json](benchmarks.json) has every number.
[performance.md](performance.md) says what they mean.

`, r.Made, r.Machine, r.Rounds, r.Each)
	fmt.Fprint(w, "## Targets\n\n")
	writeTargets(w, r.Targets, r.Notes)
	r.Clients.write(w)
	fmt.Fprintf(w, "\n## Load\n\n![%[2]s](%[1]s/throughput.svg)\n\n![%[3]s](%[1]s/p99.svg)\n\n",
		charts, altThroughput, altTail)
	fmt.Fprintf(w, `With %d callers:

| what | secrets a second (least to most) | p50 | p99 | server CPU for 100,000 | server resident |
|---|---|---|---|---|---|
`, shownCallers)
	for _, one := range r.Load {
		if one.Callers != shownCallers {
			continue
		}
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
		fmt.Fprintf(w, "| %s | %s (%s to %s) | %v | %v | %s | %s |\n", one.Subject,
			number(rate.Median), number(rate.Least), number(rate.Most),
			median(p50, one.Rounds).Round(time.Microsecond),
			median(p99, one.Rounds).Round(time.Microsecond), cpu, memory)
	}
	fmt.Fprint(w, "\n## Cost as it grows\n")
	for _, g := range r.Growth {
		fmt.Fprintf(w, "\n### %s\n\n![%s](%s/%s.svg)\n\n| %s | %s |\n|%s\n", g.Title, g.alt(),
			charts, g.file(),
			g.X, strings.Join(g.Columns, " | "), strings.Repeat("---|", len(g.Columns)+1))
		for _, one := range g.Points {
			fmt.Fprintf(w, "| %s |", number(one.X))
			for _, value := range one.Values {
				fmt.Fprintf(w, " %s |", number(value))
			}
			fmt.Fprintln(w)
		}
	}
}

func writeTargets(w io.Writer, targets []target, notes []string) {
	fmt.Fprint(w, "| measure | value | target | |\n|---|---|---|---|\n")
	for _, one := range targets {
		verdict := "met"
		if !one.isMet() {
			verdict = "**not met**"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", one.Measure, withUnit(number(one.Value), one.Unit), withUnit(one.bound(), one.Unit), verdict)
	}
	for _, note := range notes {
		fmt.Fprintf(w, "\n%s\n", note)
	}
}

// write writes the part of the client libraries, where they were measured.
func (c *clientResults) write(w io.Writer) {
	if c == nil {
		return
	}
	fmt.Fprintf(w, "\n## Client libraries\n\nMade by `make bench-clients` on %s: %s,\n"+
		"Node.js %s. Calls are made one after the other. Their numbers are medians of %d rounds of %s, and\n"+
		"a ratio is the median of the ratios of the rounds. Bare is a call with the generated types and a\n"+
		"deadline: what a worker makes without the library. The library and the bare calls ask the same\n"+
		"echo in turn.\n\n",
		c.Made, c.Machine, c.Node, c.Rounds, c.Each)
	writeTargets(w, c.Targets, c.Notes)
	fmt.Fprint(w, "\n| call | p50, µs | p99, µs | calls a second |\n|---|---|---|---|\n")
	for _, one := range c.Calls {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", one.Name, number(one.P50), number(one.P99), number(one.CallsPerSecond))
	}
}

// file is the name of the growth's chart.
func (g growth) file() string {
	return strings.ReplaceAll(g.X, " ", "-")
}

func withUnit(number, unit string) string { return strings.TrimSpace(number + " " + unit) }

// number formats with three significant digits, and thousands in full.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	switch {
	case math.Abs(v) >= 100:
		return chart.Grouped(int64(math.Round(v)))
	case math.Abs(v) >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
