package main

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMain lets this binary be started again as a server, as the benchmark does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		exitOn(serve(os.Args[2:]))
		return
	}
	os.Exit(m.Run())
}

// shortPlan is one that ends soon. Its numbers mean nothing.
func shortPlan(t *testing.T) plan {
	t.Helper()
	p := plan{quick: true, rounds: 1, each: 200 * time.Millisecond, callers: []int{16, 64},
		binary: filepath.Join(t.TempDir(), "secret-sidecar")}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", p.binary,
		"../cmd/secret-sidecar")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return p
}

func newTestStage(t *testing.T, p plan) *stage {
	t.Helper()
	s, err := newStage(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func TestTheQuickBenchmarkComparesWhatItPromises(t *testing.T) {
	p := shortPlan(t)
	lines, err := measureLoad(t.Context(), newTestStage(t, p), p)
	if err != nil {
		t.Fatal(err)
	}
	targets := loadTargets(lines)
	if len(targets) != 7 { // the eighth needs the real Vault
		t.Errorf("%d targets: %+v", len(targets), targets)
	}
	for _, one := range targets {
		if one.Value <= 0 || math.IsInf(one.Value, 0) || math.IsNaN(one.Value) {
			t.Errorf("%s is %v", one.Measure, one.Value)
		}
	}
}

func TestAReportHasItsPageItsNumbersAndItsCharts(t *testing.T) {
	p := shortPlan(t)
	s, r := newTestStage(t, p), newResults(p)
	if err := s.setUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := growValues(t.Context(), s, p, r); err != nil {
		t.Fatal(err)
	}
	r.Targets = []target{{Measure: "something", Value: 2, AtMost: 1}}
	directory := t.TempDir()
	if err := r.write(filepath.Join(directory, "benchmarks.md")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"benchmarks.md": "| something | 2 | at most 1 | **not met** |", "benchmarks.json": `"Measure": "something"`, "benchmarks/bytes.svg": "<svg",
	} {
		text, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %q: %v", name, want, err)
		}
	}
}

// A change of the drawing code shows in the documents at once: `make pictures` draws them again.
func TestTheKeptReportIsDrawnFromTheKeptNumbers(t *testing.T) {
	numbers, err := os.ReadFile("../docs/benchmarks.json")
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "benchmarks.json"), numbers,
		0o600); err != nil {
		t.Fatal(err)
	}
	if err := redraw(filepath.Join(directory, "benchmarks.md")); err != nil {
		t.Fatal(err)
	}
	charts, err := filepath.Glob("../docs/benchmarks/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(charts, "../docs/benchmarks.md") {
		kept, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		drawn, err := os.ReadFile(filepath.Join(directory, strings.TrimPrefix(file, "../docs/")))
		if err != nil || !bytes.Equal(drawn, kept) {
			t.Errorf("%s is not what make pictures draws: %v", file, err)
		}
	}
}

func TestAReportWhoseNumbersAreLostCannotBeDrawn(t *testing.T) {
	if err := redraw(filepath.Join(t.TempDir(), "benchmarks.md")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestColumnsArePartedFromTheirUnits(t *testing.T) {
	for column, want := range map[string][2]string{
		"p50, 16 callers, µs": {"p50, 16 callers", "µs"}, "resident, MB": {"resident", "MB"},
		"hits a second, 16 callers": {"hits a second, 16 callers", ""}, "hits": {"hits", ""},
	} {
		if what, unit := splitUnit(column); what != want[0] || unit != want[1] {
			t.Errorf("%q is %q in %q", column, what, unit)
		}
	}
}

func TestTheClientLibrariesAreMeasured(t *testing.T) {
	if _, err := os.Stat("../client/node/dist/esm"); err != nil {
		t.Skip("the Node client is not built: make test-node")
	}
	p := shortPlan(t)
	found, err := measureClients(t.Context(), newTestStage(t, p), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Targets) != 13 || len(found.Calls) != len(clientSubjects) {
		t.Errorf("%d targets, %d kinds of calls", len(found.Targets), len(found.Calls))
	}
	for _, one := range found.Targets {
		if strings.HasPrefix(one.Measure, "answered / calls") && one.Value != 1 {
			t.Errorf("%s is %v", one.Measure, one.Value)
		}
	}
	var page strings.Builder
	found.write(&page)
	if !strings.Contains(page.String(), "## Client libraries") || strings.Contains(page.String(), "NaN") {
		t.Errorf("the page is\n%s", page.String())
	}
}

func TestProfilesAreWritten(t *testing.T) {
	p := shortPlan(t)
	p.profile, p.profileFor = t.TempDir(), time.Second
	if err := profile(t.Context(), newTestStage(t, p), p); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"cpu", "heap", "mutex", "block"} {
		if info, err := os.Stat(filepath.Join(p.profile, kind+".pprof")); err != nil ||
			info.Size() == 0 {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestColdStartsAreMeasuredUntilTheFirstSecret(t *testing.T) {
	p := shortPlan(t)
	p.starts = 1
	var table strings.Builder
	if err := measureColdStarts(t.Context(), newTestStage(t, p), p, &table); err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(
		`(?m)^\| (?:development Vault|the same, program read from disk) (?:\| [0-9.]+ ms \([0-9.]+\) ){4}\| [0-9.]+ MB \|$`)
	if rows := row.FindAllString(table.String(), -1); len(rows) != 2 ||
		strings.Contains(table.String(), " 0.0 ") {
		t.Errorf("the table is\n%s", table.String())
	}
}

func TestNamesOfSecretsSayWhatTheirValuesAre(t *testing.T) {
	size, number, ok := parseName(secretName(1024, 42))
	if size != 1024 || number != "0000042" || !ok {
		t.Errorf("%d, %q, %v", size, number, ok)
	}
	request := requests("c", 1024, 42, 1)[0]
	if value := valueOf(size, number); len(value) != 1024 || !isRight(request, value) ||
		isRight(request, valueOf(size, "0000043")) {
		t.Error("a value is not told from another")
	}
	for _, other := range []string{"app", "size-", "size-x-0000001", "size-16-1",
		"size-3-0000001"} {
		if _, _, ok := parseName(other); ok {
			t.Errorf("%q is taken for one of ours", other)
		}
	}
}

func TestNumbersAreShort(t *testing.T) {
	for value, want := range map[float64]string{
		0: "0", 0.954: "0.95", 7: "7", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567",
		-1.02: "-1.02", -123456: "-123,456",
	} {
		if got := number(value); got != want {
			t.Errorf("%v is %q, want %q", value, got, want)
		}
	}
}
