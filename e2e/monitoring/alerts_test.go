package monitoring_test

import (
	"context"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

const rulesFile = "../../deploy/prometheus/secret-sidecar.rules.yaml"

// alertRules reads the rules as Prometheus does, which finds unknown keys and templates that do not
// work.
func alertRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	groups, failures := rulefmt.Parse(text, false, model.UTF8Validation,
		parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, failure := range failures {
		t.Error(failure)
	}
	if t.Failed() {
		t.FailNow()
	}
	var all []rulefmt.Rule
	for _, group := range groups.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

func TestEveryAlertIsAboutMetricsThatTheSidecarExports(t *testing.T) {
	metrics := documentedMetrics(t)
	for _, rule := range alertRules(t) {
		for _, problem := range problems(t, metrics, rule.Expr) {
			t.Errorf("%s: %s", rule.Alert, problem)
		}
		if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" ||
			rule.Annotations["description"] == "" {
			t.Errorf("%s lacks its severity, summary or description", rule.Alert)
		}
	}
}

var alertInGuide = regexp.MustCompile("(?m)^\\| `(SecretSidecar\\w+)` \\|")

func TestTheGuideSaysWhatToDoAboutEveryAlert(t *testing.T) {
	documented := map[string]bool{}
	for _, match := range alertInGuide.FindAllStringSubmatch(observabilityGuide(t), -1) {
		documented[match[1]] = true
	}
	for _, rule := range alertRules(t) {
		if !documented[rule.Alert] {
			t.Errorf("%s is not in docs/observability.md", rule.Alert)
		}
		delete(documented, rule.Alert)
	}
	for name := range documented {
		t.Errorf("docs/observability.md has %s, and there is no such alert", name)
	}
}

// aSample is a value for every minute of half an hour: notation is promqltest's, for example
// 0+5x30.
func aSample(series, notation string) string { return "  " + series + " " + notation + "\n" }

// firing says for each alert with which series it fires, from when, and with which it must not.
var firing = map[string]struct {
	fires []string
	after time.Duration // at the latest
	quiet []string
}{
	"SecretSidecarRequestsFail": {
		fires: []string{
			aSample(`secret_sidecar_resolves_total{instance="a",connection="prod",outcome="cache"}`,
				"0+600x30") +
				aSample(`secret_sidecar_resolves_total{instance="a",connection="prod",outcome="error",error_type="VAULT_SEALED"}`, "0+60x30"),
			aSample(`secret_sidecar_resolves_total{instance="a",connection="prod",outcome="error",error_type="LOGIN_REJECTED"}`, "0+6x30"),
			// Deadlines that pass while Vault is silent.
			aSample(`secret_sidecar_resolves_total{instance="a",connection="prod",outcome="error",error_type="DEADLINE_EXCEEDED"}`, "0+6x30"),
			// A small connection beside a large one that is well.
			aSample(`secret_sidecar_resolves_total{instance="a",connection="prod",outcome="cache"}`,
				"0+60000x30") +
				aSample(`secret_sidecar_resolves_total{instance="a",connection="small",outcome="error",error_type="VAULT_SEALED"}`, "0+6x30"),
		},
		after: 8 * time.Minute,
		quiet: []string{
			aSample(`secret_sidecar_resolves_total{instance="a",connection="prod",outcome="cache"}`,
				"0+6000x30") +
				aSample(`secret_sidecar_resolves_total{instance="a",connection="prod",outcome="error",error_type="VAULT_SEALED"}`, "0+6x30"),
			aSample(`secret_sidecar_resolves_total{instance="a",connection="prod",outcome="error",error_type="SECRET_NOT_FOUND"}`, "0+600x30"),
		},
	},
	"SecretSidecarLoginRejected": {
		fires: []string{aSample(
			`secret_sidecar_connection_state{connection="prod",state="rejected"}`, "1x30")},
		after: 2 * time.Minute,
		quiet: []string{aSample(
			`secret_sidecar_connection_state{connection="prod",state="rejected"}`, "0x30")},
	},
	"SecretSidecarNeverLoggedIn": {
		fires: []string{
			aSample(`secret_sidecar_connection_state{connection="prod",state="connecting"}`,
				"1x30"),
			// and Vault has never answered
			aSample(`secret_sidecar_connection_state{connection="prod",state="degraded"}`, "1x30"),
		},
		after: 6 * time.Minute,
		quiet: []string{
			aSample(`secret_sidecar_connection_state{connection="prod",state="connecting"}`,
				"1x3 0x27"),
			aSample(`secret_sidecar_connection_state{connection="prod",state="degraded"}`, "1x30") +
				aSample(`secret_sidecar_vault_last_answer_age_seconds{connection="prod"}`,
					"0+60x30"),
		},
	},
	"SecretSidecarVaultAway": {
		fires: []string{
			aSample(`secret_sidecar_connection_state{connection="prod",state="degraded"}`, "1x30") +
				aSample(`secret_sidecar_vault_last_answer_age_seconds{connection="prod"}`,
					"0+60x30"),
		},
		after: 6 * time.Minute,
		quiet: []string{
			aSample(`secret_sidecar_connection_state{connection="prod",state="degraded"}`,
				"1x2 0x5 1x2 0x20") +
				aSample(`secret_sidecar_vault_last_answer_age_seconds{connection="prod"}`,
					"0+60x30"),
			aSample(`secret_sidecar_connection_state{connection="prod",state="degraded"}`, "1x30"),
		},
	},
	"SecretSidecarServesStale": {
		fires: []string{aSample(`secret_sidecar_resolves_total{connection="prod",outcome="stale"}`,
			"0+5x30")},
		after: 13 * time.Minute,
		quiet: []string{aSample(`secret_sidecar_resolves_total{connection="prod",outcome="stale"}`,
			"0 5x30")},
	},
	"SecretSidecarSecretIDExpires": {
		fires: []string{aSample(`secret_sidecar_secret_id_ttl_seconds{connection="prod"}`,
			"90000-60x30")},
		after: 6 * time.Minute,
		quiet: []string{aSample(`secret_sidecar_secret_id_ttl_seconds{connection="prod"}`,
			"900000-60x30")},
	},
	"SecretSidecarDenied": {
		fires: []string{aSample(
			`secret_sidecar_resolves_total{connection="prod",outcome="error",error_type="VAULT_PERMISSION_DENIED"}`, "0+1x30")},
		after: 13 * time.Minute,
		quiet: []string{aSample(
			`secret_sidecar_resolves_total{connection="prod",outcome="error",error_type="VAULT_PERMISSION_DENIED"}`, "7x30")},
	},
	"SecretSidecarRequestsAstray": {
		fires: []string{aSample(
			`secret_sidecar_resolves_total{connection="",outcome="error",error_type="CONNECTION_REQUIRED"}`, "0+1x30")},
		after: 13 * time.Minute,
		quiet: []string{aSample(
			`secret_sidecar_resolves_total{connection="",outcome="error",error_type="INVALID_PATH"}`, "0+1x30")},
	},
	"SecretSidecarOverloaded": {
		fires: []string{aSample(
			`secret_sidecar_resolves_total{connection="prod",outcome="error",error_type="OVERLOADED"}`, "0+10x30")},
		after: 8 * time.Minute,
		quiet: []string{aSample(
			`secret_sidecar_resolves_total{connection="prod",outcome="error",error_type="OVERLOADED"}`, "10x30")},
	},
	"SecretSidecarVaultSlow": {
		fires: []string{
			aSample(`http_client_request_duration_seconds_bucket{connection="prod",vault_call="read",le="1"}`, "0+10x30") +
				aSample(`http_client_request_duration_seconds_bucket{connection="prod",vault_call="read",le="2.5"}`, "0+20x30") +
				aSample(`http_client_request_duration_seconds_bucket{connection="prod",vault_call="read",le="+Inf"}`, "0+20x30"),
		},
		after: 13 * time.Minute,
		quiet: []string{
			aSample(`http_client_request_duration_seconds_bucket{connection="prod",vault_call="read",le="1"}`, "0+20x30") +
				aSample(`http_client_request_duration_seconds_bucket{connection="prod",vault_call="read",le="+Inf"}`, "0+20x30"),
			aSample(`http_client_request_duration_seconds_bucket{connection="prod",vault_call="login",le="+Inf"}`, "0+20x30"),
		},
	},
	"SecretSidecarCacheTooSmall": {
		fires: []string{aSample(`secret_sidecar_cache_evictions_total{instance="a"}`, "0+60x40") +
			aSample(`secret_sidecar_cache_rejections_total{instance="a"}`, "0x40")},
		after: 20 * time.Minute,
		quiet: []string{aSample(`secret_sidecar_cache_evictions_total{instance="a"}`, "0+1x40") +
			aSample(`secret_sidecar_cache_rejections_total{instance="a"}`, "0+1x40")},
	},
	"SecretSidecarConfigRefused": {
		fires: []string{aSample("secret_sidecar_config_refused", "0x5 1x25")},
		after: 8 * time.Minute,
		quiet: []string{aSample("secret_sidecar_config_refused", "0x30")},
	},
	"SecretSidecarCallersRefused": {
		fires: []string{
			aSample(`secret_sidecar_callers_refused_total{method="Resolve",error_type="CALLER_NOT_ALLOWED"}`, "0+5x30"),
			// a burst
			aSample(`secret_sidecar_callers_refused_total{method="Resolve",error_type="CALLER_NOT_ALLOWED"}`, "0x5 500x25"),
		},
		after: 10 * time.Minute,
		quiet: []string{aSample(
			`secret_sidecar_callers_refused_total{method="Resolve",error_type="CALLER_NOT_ALLOWED"}`, "0+0.2x30")},
	},
}

func TestEveryAlertFiresWhenItShouldAndOnlyThen(t *testing.T) {
	for _, rule := range alertRules(t) {
		example, ok := firing[rule.Alert]
		if !ok {
			t.Errorf("%s has no examples", rule.Alert)
			continue
		}
		t.Run(rule.Alert, func(t *testing.T) {
			for _, series := range example.fires {
				if at := firesAt(t, rule, series); at > example.after {
					t.Errorf("fires after %v, want %v at the latest, with\n%s", at, example.after,
						series)
				}
			}
			for _, series := range example.quiet {
				if at := firesAt(t, rule, series); at != never {
					t.Errorf("fires after %v, and should not, with\n%s", at, series)
				}
			}
		})
	}
}

// never is longer than any example.
const never = 24 * time.Hour

// firesAt evaluates the rule every minute, as Prometheus does, and returns when it fires first.
func firesAt(t *testing.T, rule rulefmt.Rule, series string) time.Duration {
	t.Helper()
	store := promqltest.LoadedStorage(t, "load 1m\n"+series)
	defer func() { _ = store.Close() }()
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	expression, err := parser.NewParser(parser.Options{}).ParseExpr(rule.Expr)
	if err != nil {
		t.Fatal(err)
	}
	alert := rules.NewAlertingRule(rule.Alert, expression, time.Duration(rule.For),
		time.Duration(rule.KeepFiringFor),
		labels.FromMap(rule.Labels), labels.FromMap(rule.Annotations), labels.EmptyLabels(), "",
		true, slog.New(slog.DiscardHandler))
	query := rules.EngineQueryFunc(engine, store)
	for minute := range 30 {
		at := time.Duration(minute) * time.Minute
		if _, err := alert.Eval(context.Background(), 0, time.Unix(0, 0).Add(at), query, nil,
			0); err != nil {
			t.Fatal(err)
		}
		for _, active := range alert.ActiveAlerts() {
			if active.State == rules.StateFiring {
				requireFilledIn(t, active)
				return at
			}
		}
	}
	return never
}

// requireFilledIn looks for templates that had nothing to fill in.
func requireFilledIn(t *testing.T, alert *rules.Alert) {
	t.Helper()
	alert.Annotations.Range(func(l labels.Label) {
		if strings.Contains(l.Value, "<no value>") || strings.Contains(l.Value, "<error") ||
			l.Name == "summary" && strings.HasSuffix(l.Value, "connection ") {
			t.Errorf("%s reads %q", l.Name, l.Value)
		}
	})
}
