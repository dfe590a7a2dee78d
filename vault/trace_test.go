package vault

import (
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

func TestLinksAreBounded(t *testing.T) {
	provider := sdktrace.NewTracerProvider()
	first, _ := provider.Tracer("test").Start(t.Context(), "first")
	first = WithCallers(first)
	for range 2 * maxLinks {
		caller, _ := provider.Tracer("test").Start(t.Context(), "caller")
		JoinCaller(caller, first)
	}
	if n := len(linksOf(first)); n != maxLinks {
		t.Errorf("%d links, want %d", n, maxLinks)
	}
}
