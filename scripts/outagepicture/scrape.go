package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// sample is what the metrics said at one moment. Counts are since the start.
type sample struct {
	at       time.Duration
	outcomes map[string]float64 // by outcome
	calls    histogram          // rpc.server.call.duration of Resolve, all statuses
	ages     histogram          // secret_sidecar.value.age, all sources
	silence  float64            // secret_sidecar.vault.last_answer.age, in seconds
}

// histogram is counts by upper bound, each with those below it.
type histogram map[float64]float64

// scrape asks the sidecar's Prometheus endpoint.
func (s *sidecar) scrape(ctx context.Context) (sample, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.metrics, http.NoBody)
	if err != nil {
		return sample{}, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return sample{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		return sample{}, fmt.Errorf("parse the metrics: %w", err)
	}
	one := sample{outcomes: map[string]float64{}, calls: histogram{}, ages: histogram{}}
	for _, metric := range families["secret_sidecar_resolves_total"].GetMetric() {
		one.outcomes[label(metric, "outcome")] += metric.GetCounter().GetValue()
	}
	one.calls.add(families["rpc_server_call_duration_seconds"])
	one.ages.add(families["secret_sidecar_value_age_seconds"])
	for _, metric := range families["secret_sidecar_vault_last_answer_age_seconds"].GetMetric() {
		one.silence = metric.GetGauge().GetValue()
	}
	return one, nil
}

func label(metric *dto.Metric, name string) string {
	for _, one := range metric.GetLabel() {
		if one.GetName() == name {
			return one.GetValue()
		}
	}
	return ""
}

func (h histogram) add(family *dto.MetricFamily) {
	for _, metric := range family.GetMetric() {
		for _, bucket := range metric.GetHistogram().GetBucket() {
			h[bucket.GetUpperBound()] += float64(bucket.GetCumulativeCount())
		}
	}
}
