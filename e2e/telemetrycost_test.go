package e2e_test

import (
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTelemetryThatIsOffCostsNothing compares the product's server, without a variable that asks
// for an export, with one into which no telemetry is linked.
func TestTelemetryThatIsOffCostsNothing(t *testing.T) {
	linked, goroutines := resolveCost(t, "")
	bare, bareGoroutines := resolveCost(t, "unlinked")
	t.Logf("a cached Resolve allocates %.2f times with telemetry off, %.2f times without any; "+
		"goroutines: %d and %d", linked, bare, goroutines, bareGoroutines)
	if math.Abs(linked-bare) > 0.5 {
		t.Errorf("a cached Resolve allocates %.2f times with telemetry off, and %.2f times "+
			"without any",
			linked, bare)
	}
	if goroutines != bareGoroutines {
		t.Errorf("%d goroutines with telemetry off, and %d without any", goroutines, bareGoroutines)
	}
}

// resolveCost builds and runs the program that measures.
func resolveCost(t *testing.T, tag string) (allocations float64, goroutines int) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "cost")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", tag, "-o", program,
		"./telemetrycost")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	deps, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", tag,
		"./telemetrycost").Output()
	if err != nil {
		t.Fatal(err)
	}
	if hasSDK := strings.Contains(string(deps),
		"go.opentelemetry.io/otel/sdk"); hasSDK != (tag == "") {
		t.Fatalf("with the tag %q, is OpenTelemetry's SDK linked? %v", tag, hasSDK)
	}
	run := exec.CommandContext(t.Context(), program)
	run.Env = append(run.Environ(), "GOMAXPROCS=2")
	out, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(out), &allocations, &goroutines); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return allocations, goroutines
}
