// Package monitoring_test checks the dashboard and the alerts in deploy/ with Prometheus's own
// code. It is a module of its own, so that nothing of Prometheus is ever linked into the product.
package monitoring_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// metric is what docs/observability.md says of a metric; e2e checks that against what the sidecar
// exports.
type metric struct {
	histogram bool
	labels    []string
}

var (
	metricRow = regexp.MustCompile(
		"(?m)^\\| `[a-z_.]+` \\| `([a-z_]+)` \\| (counter|gauge|histogram)(?:, `[^`]+`)? \\| " +
			"?([^|]*?) ?\\|")
	quoted = regexp.MustCompile("`([^`]+)`")
)

// documentedMetrics reads the tables of metrics, by Prometheus's names.
func documentedMetrics(t *testing.T) map[string]metric {
	t.Helper()
	metrics := map[string]metric{}
	for _, row := range metricRow.FindAllStringSubmatch(observabilityGuide(t), -1) {
		one := metric{histogram: row[2] == "histogram", labels: []string{"job", "instance"}}
		for _, match := range quoted.FindAllStringSubmatch(row[3], -1) {
			one.labels = append(one.labels, strings.ReplaceAll(match[1], ".", "_"))
		}
		metrics[row[1]] = one
	}
	if len(metrics) < 20 {
		t.Fatalf("%d metrics in the tables, are they still there?", len(metrics))
	}
	return metrics
}

func observabilityGuide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// find returns the metric that a selector's name belongs to: of a histogram there are three series.
func find(metrics map[string]metric, name string) (metric, bool) {
	if one, ok := metrics[name]; ok && !one.histogram {
		return one, true
	}
	for _, end := range []string{"_bucket", "_sum", "_count"} {
		one, ok := metrics[strings.TrimSuffix(name, end)]
		if ok && one.histogram && strings.HasSuffix(name, end) {
			if end == "_bucket" {
				one.labels = append(slices.Clone(one.labels), "le")
			}
			return one, true
		}
	}
	return metric{}, false
}

// problems lists what is wrong with an expression: metrics and labels that the sidecar does not
// export.
func problems(t *testing.T, metrics map[string]metric, expression string) []string {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	known := map[string]bool{}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		one, ok := find(metrics, selector.Name)
		if !ok {
			found = append(found, "no metric "+selector.Name)
			return nil
		}
		for _, label := range one.labels {
			known[label] = true
		}
		for _, matcher := range selector.LabelMatchers {
			if matcher.Name != model.MetricNameLabel && !slices.Contains(one.labels, matcher.Name) {
				found = append(found, selector.Name+" has no label "+matcher.Name)
			}
		}
		return nil
	})
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if aggregate, ok := node.(*parser.AggregateExpr); ok {
			for _, label := range aggregate.Grouping {
				if !known[label] {
					found = append(found,
						"no metric of it has the label "+label+"; they have "+
							strings.Join(slices.Sorted(maps.Keys(known)), ", "))
				}
			}
		}
		return nil
	})
	return found
}

func TestTheCheckFindsWhatIsNotExported(t *testing.T) {
	metrics := documentedMetrics(t)
	for name, expression := range map[string]string{
		"a misspelt metric":             `rate(secret_sidecar_resolve_total[5m])`,
		"a misspelt label":              `secret_sidecar_connection_state{status="ready"}`,
		"a grouping that is not there":  `sum by (mount) (rate(secret_sidecar_resolves_total[5m]))`,
		"a histogram without its end":   `rate(rpc_server_call_duration_seconds[5m])`,
		"a counter with a histogram's":  `secret_sidecar_resolves_total_bucket`,
		"a query that cannot be parsed": `sum(`,
	} {
		if len(problems(t, metrics, expression)) == 0 {
			t.Errorf("%s is not found: %s", name, expression)
		}
	}
}
