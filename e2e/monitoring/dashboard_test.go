package monitoring_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

const dashboardFile = "../../deploy/grafana/secret-sidecar.json"

// dashboard is what the test looks at of Grafana's JSON.
type dashboard struct {
	Panels     []panel
	Templating struct {
		List []struct {
			Name, Type string
			Query      json.RawMessage
		}
	}
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ RefID, Expr, LegendFormat string }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// filledIn puts a value in the place of each of Grafana's variables.
func filledIn(expression string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*",
		"$connection", ".*").Replace(expression)
}

func TestEveryPanelAsksForMetricsThatTheSidecarExports(t *testing.T) {
	metrics, asked := documentedMetrics(t), ""
	for _, one := range readDashboard(t).Panels {
		if one.Type == "row" {
			continue
		}
		if one.Title == "" || one.Description == "" || len(one.Targets) == 0 {
			t.Errorf("panel %d (%q) lacks its title, description or query", one.ID, one.Title)
		}
		for _, target := range one.Targets {
			asked += target.Expr + "\n"
			for _, problem := range problems(t, metrics, filledIn(target.Expr)) {
				t.Errorf("%s: %s\n%s", one.Title, problem, target.Expr)
			}
		}
	}
	for name := range metrics {
		isOurs := strings.HasPrefix(name, "secret_sidecar_")
		if isOurs && !strings.Contains(asked, name) && !notShown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// notShown are metrics that other panels tell better.
var notShown = map[string]bool{
	"secret_sidecar_connection_state_age_seconds":  true, // the timeline of states
	"secret_sidecar_vault_last_answer_age_seconds": true, // likewise
	"secret_sidecar_invalidations_total":           true, // the secrets that they dropped
}

var labelInLegend = regexp.MustCompile(`\{\{(\w+)\}\}`)

func TestEveryLegendNamesALabelThatTheQueryKeeps(t *testing.T) {
	for _, one := range readDashboard(t).Panels {
		for _, target := range one.Targets {
			for _, match := range labelInLegend.FindAllStringSubmatch(target.LegendFormat, -1) {
				grouping := regexp.MustCompile(`by \([^)]*\b` + match[1] + `\b`)
				if strings.Contains(target.Expr, "sum") && !grouping.MatchString(target.Expr) {
					t.Errorf("%s: the legend has %s, and the query drops it: %s", one.Title,
						match[0], target.Expr)
				}
			}
		}
	}
}

func TestPanelsHaveTheirOwnPlaceAndNumber(t *testing.T) {
	ids, places := map[int]string{}, map[[2]int]string{}
	for _, one := range readDashboard(t).Panels {
		if other, taken := ids[one.ID]; taken {
			t.Errorf("%q and %q have the number %d", other, one.Title, one.ID)
		}
		ids[one.ID] = one.Title
		for x := one.GridPos.X; x < one.GridPos.X+one.GridPos.W; x++ {
			for y := one.GridPos.Y; y < one.GridPos.Y+one.GridPos.H; y++ {
				if other, taken := places[[2]int{x, y}]; taken {
					t.Fatalf("%q lies over %q", one.Title, other)
				}
				places[[2]int{x, y}] = one.Title
			}
		}
		if one.GridPos.X+one.GridPos.W > 24 {
			t.Errorf("%q is wider than the screen", one.Title)
		}
	}
}

func TestTheVariablesAskForMetricsThatTheSidecarExports(t *testing.T) {
	metrics := documentedMetrics(t)
	selector := regexp.MustCompile(`label_values\((.+), (\w+)\)`)
	for _, variable := range readDashboard(t).Templating.List {
		if variable.Type != "query" {
			continue
		}
		var query struct{ Query string }
		if err := json.Unmarshal(variable.Query, &query); err != nil {
			t.Fatal(err)
		}
		match := selector.FindStringSubmatch(query.Query)
		if match == nil {
			t.Errorf("%s asks %q", variable.Name, query.Query)
			continue
		}
		for _, problem := range problems(t, metrics,
			"count by ("+match[2]+") ("+filledIn(match[1])+")") {
			t.Errorf("%s: %s", variable.Name, problem)
		}
	}
}
