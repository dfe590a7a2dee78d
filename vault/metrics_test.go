package vault

import (
	"testing"

	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func TestARejectedLoginIsCounted(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	defer otel.SetMeterProvider(before)
	countRejection("prod")
	countRejection("prod")

	var collected metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &collected); err != nil {
		t.Fatal(err)
	}
	for _, scope := range collected.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if m.Name != "secret_sidecar.login.rejections" || !ok {
				continue
			}
			name, _ := sum.DataPoints[0].Attributes.Value("connection")
			if len(sum.DataPoints) != 1 || sum.DataPoints[0].Value != 2 || name.AsString() != "prod" {
				t.Errorf("counted %+v", sum.DataPoints)
			}
			return
		}
	}
	t.Error("nothing counted")
}
