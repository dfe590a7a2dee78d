package main

import (
	"bytes"
	"maps"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A change of the drawing code shows in the documents at once: `make pictures` draws them again.
func TestTheKeptPictureIsDrawnFromTheKeptNumbers(t *testing.T) {
	const kept = "../../docs/observability/outage.svg"
	numbers, err := os.ReadFile(numbersOf(kept))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "outage.svg")
	if err := os.WriteFile(numbersOf(file), numbers, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := draw(file); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what make pictures draws: %v", kept, err)
	}
}

func TestAMomentComparesTwoSamplesAndLeavesOutWhatNobodySaid(t *testing.T) {
	samples := make([]sample, window+1)
	for i := range samples {
		at := time.Duration(i) * time.Second
		calls := float64(16 * i)
		samples[i] = sample{
			at: at, outcomes: map[string]float64{"stale": float64(10 * i)},
			calls: histogram{0.001: calls / 2, 0.002: calls, math.Inf(1): calls},
		}
	}
	file := filepath.Join(t.TempDir(), "outage.svg")
	moments := momentsOf(samples)
	if len(moments) != 1 {
		t.Fatalf("%d moments", len(moments))
	}
	want := map[string]float64{
		"cache": 0, "stale": 10, "vault": 0, "error": 0, "p50": 1, "p99": 1.98, "silence": 0,
	}
	if got := moments[0].Numbers; !maps.Equal(got, want) {
		t.Errorf("the moment is %v, want %v", got, want)
	}
	if err := keep(file, moments); err != nil {
		t.Fatal(err)
	}
	if err := draw(file); err != nil {
		t.Fatal(err)
	}
}
