package manifests_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// measured is what docs/benchmarks.json says about memory, in bytes.
type measured struct{ tenThousand, perSecret int64 }

// benchmark is set by TestMain.
var benchmark measured

func TestMain(m *testing.M) {
	var err error
	if benchmark, err = readBenchmark("../../docs/benchmarks.json"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func readBenchmark(file string) (measured, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return measured{}, err
	}
	var page struct {
		Targets []struct {
			Measure string
			Value   float64
		}
	}
	if err := json.Unmarshal(text, &page); err != nil {
		return measured{}, fmt.Errorf("%s: %w", file, err)
	}
	var m measured
	for _, target := range page.Targets {
		switch {
		case strings.HasPrefix(target.Measure, "the same with 10,000 secrets"):
			m.tenThousand = int64(target.Value * 1e6)
		case strings.HasPrefix(target.Measure, "heap for each cached secret"):
			m.perSecret = int64(target.Value)
		}
	}
	if m.tenThousand == 0 || m.perSecret == 0 {
		return measured{}, fmt.Errorf("%s lacks a measure of memory: %+v", file, m)
	}
	return m, nil
}
