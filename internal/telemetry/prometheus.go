package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// prometheusReader is a reader with the HTTP server that answers /metrics from it.
type prometheusReader struct {
	sdkmetric.Reader

	server *http.Server
}

// servePrometheus starts a server of /metrics, with a registry of its own, on
// OTEL_EXPORTER_PROMETHEUS_HOST and OTEL_EXPORTER_PROMETHEUS_PORT. Shutdown of the reader ends the
// server.
func servePrometheus(ctx context.Context, getenv lookup) (sdkmetric.Reader, error) {
	registry := prometheus.NewRegistry()
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, err
	}
	address := prometheusAddress(getenv)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", address, err), reader.Shutdown(ctx))
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	server := &http.Server{
		Handler: mux,
		// A scraper that is slow or silent keeps no connection for ever.
		ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			otel.Handle(fmt.Errorf("the server of /metrics has ended: %w", err))
		}
	}()
	return prometheusReader{reader, server}, nil
}

func prometheusAddress(getenv lookup) string {
	host, port := "localhost", "9464"
	if named := trimmed(getenv, "OTEL_EXPORTER_PROMETHEUS_HOST"); named != "" {
		host = named
	}
	if named := trimmed(getenv, "OTEL_EXPORTER_PROMETHEUS_PORT"); named != "" {
		port = named
	}
	return host + ":" + port // an IPv6 host has its brackets
}

// Shutdown ends the reader and the server.
func (r prometheusReader) Shutdown(ctx context.Context) error {
	return errors.Join(r.Reader.Shutdown(ctx), r.server.Shutdown(ctx))
}
