package vault

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// countRejection adds one to secret_sidecar.login.rejections, by connection. Nothing is counted while nothing
// is exported. It fetches the counter each time: rejections are minutes apart.
func countRejection(connection string) {
	counter, err := otel.Meter("github.com/secret-sidecar/secret-sidecar/vault").Int64Counter(
		"secret_sidecar.login.rejections",
		metric.WithDescription("Logins that Vault rejected, or that the login budget refused"),
		metric.WithUnit("{login}"))
	if err != nil {
		return // the name and the unit are constants; the counter's test would fail
	}
	counter.Add(context.Background(), 1, metric.WithAttributes(attribute.String("connection", connection)))
}
