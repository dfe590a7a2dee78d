package e2e_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
)

// metricRow is a row of the tables of metrics: name, Prometheus's name, kind and unit, attributes.
var metricRow = regexp.MustCompile(
	"(?m)^\\| `([a-z_.]+)` \\| `([a-z_]+)` \\| (counter|gauge|histogram)(?:, `([^`]+)`)? \\| " +
		"?([^|]*?) ?\\|")

var quoted = regexp.MustCompile("`([^`]+)`")

// requireMetricsInDocs compares what was exported with what docs/observability.md says is.
func requireMetricsInDocs(t *testing.T, exported map[string]*exportedMetric,
	prometheus map[string]bool) {
	t.Helper()
	text, err := os.ReadFile("../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range metricRow.FindAllStringSubmatch(string(text), -1) {
		name, kind, unit := row[1], row[3], row[4]
		documented[name] = true
		got := exported[name]
		if got == nil {
			t.Errorf("%s is documented and not exported", name)
			continue
		}
		attributes := map[string]bool{}
		for _, match := range quoted.FindAllStringSubmatch(row[5], -1) {
			attributes[match[1]] = true
		}
		if got.kind != kind || got.unit != unit || !maps.Equal(got.attributes, attributes) {
			t.Errorf("%s is a %s in %q with %v; the document says %s in %q with %v",
				name, got.kind, got.unit, slices.Sorted(maps.Keys(got.attributes)), kind, unit,
				slices.Sorted(maps.Keys(attributes)))
		}
		if !prometheus[row[2]] {
			t.Errorf("Prometheus knows no %s", row[2])
		}
	}
	for name, metric := range exported {
		if !documented[name] {
			t.Errorf("%s is exported and not documented: a %s in %q with %v", name, metric.kind,
				metric.unit, slices.Sorted(maps.Keys(metric.attributes)))
		}
	}
}
