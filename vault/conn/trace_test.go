package conn

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// tracedClient is a client that is logged in and whose spans are recorded from then on.
func tracedClient(t *testing.T, w *world, paths bool) (*Connection, *sdktrace.TracerProvider, *tracetest.SpanRecorder) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	cfg := w.role(`{"token_policies":"app"}`)
	cfg.Tracer, cfg.TracePaths = provider.Tracer("test"), paths
	cfg.SpanAttributes = []attribute.KeyValue{attribute.String("connection", "test")}
	c := w.open(cfg)
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	spans.Reset()
	return c, provider, spans
}

func attributesOf(span sdktrace.ReadOnlySpan) string {
	set := attribute.NewSet(span.Attributes()...)
	return set.Encoded(attribute.DefaultEncoder())
}

func TestAReadIsASpanOfItsCallerWithoutThePath(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c, provider, spans := tracedClient(t, w, false)
		ctx, parent := provider.Tracer("test").Start(t.Context(), "Resolve")
		var sent http.Header
		w.breakWith(func(r *http.Request) (*http.Response, error) { sent = r.Header; return w.answer(r, nil) })
		if _, err := c.Read(ctx, "secret/data/app", 0); err != nil {
			t.Fatal(err)
		}
		span := spans.Ended()[0]
		const want = "connection=test,http.request.method=GET,http.response.status_code=200," +
			"url.template=/v1/{mount}/data/{path},vault.call=read"
		if got := attributesOf(span); got != want || span.Name() != "GET /v1/{mount}/data/{path}" {
			t.Errorf("%q with %s\nwant %s", span.Name(), got, want)
		}
		if span.Parent().SpanID() != parent.SpanContext().SpanID() {
			t.Error("the span is not the caller's child")
		}
		if want := span.SpanContext().TraceID().String() + "-" + span.SpanContext().SpanID().String(); !strings.Contains(sent.Get("Traceparent"), want) {
			t.Errorf("Vault was sent the trace %q, want %s", sent.Get("Traceparent"), want)
		}
		if text := fmt.Sprint(span); strings.Contains(text, "secret/data") {
			t.Errorf("the span shows the path: %s", text)
		}
	})
}

func TestASpanHasThePathWhenAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c, _, spans := tracedClient(t, w, true)
		_, _ = c.Read(t.Context(), "secret/data/app", 3)
		if got := attributesOf(spans.Ended()[0]); !strings.Contains(got, "url.full=http://vault:8200/v1/secret/data/app?version\\=3") {
			t.Errorf("attributes are %s", got)
		}
	})
}

func TestAFailedCallIsASpanWithItsErrorType(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c, _, spans := tracedClient(t, w, false)
		_, _ = c.Read(t.Context(), "secret/data/missing", 0)
		span := spans.Ended()[0]
		if got := attributesOf(span); !strings.Contains(got, "error.type=404") {
			t.Errorf("attributes are %s", got)
		}
		if span.Status().Code != codes.Error || span.Status().Description != "" {
			t.Errorf("status is %+v", span.Status())
		}
	})
}

func TestCallersThatJoinAReadAreLinkedWithItsSpan(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c, provider, spans := tracedClient(t, w, false)
		first, firstSpan := provider.Tracer("test").Start(t.Context(), "first")
		second, secondSpan := provider.Tracer("test").Start(t.Context(), "second")
		first = vault.WithCallers(first)
		vault.JoinCaller(second, first)
		vault.JoinCaller(t.Context(), first) // without a span: nothing to link
		if _, err := c.Read(first, "secret/data/app", 0); err != nil {
			t.Fatal(err)
		}
		secondSpan.End()
		read, joined := spans.Ended()[0], spans.Ended()[1]
		if links := read.Links(); len(links) != 1 || links[0].SpanContext.SpanID() != secondSpan.SpanContext().SpanID() {
			t.Errorf("the read's links are %v", links)
		}
		if links := joined.Links(); len(links) != 1 || links[0].SpanContext.SpanID() != firstSpan.SpanContext().SpanID() {
			t.Errorf("the joined caller's links are %v", links)
		}
	})
}

func TestNoLinksAreKeptWithoutASpan(t *testing.T) {
	if ctx := vault.WithCallers(t.Context()); ctx != t.Context() {
		t.Error("the context changed")
	}
}

func TestEveryKindOfCallHasARouteWithoutNames(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c, _, spans := tracedClient(t, w, false)
		_, _ = c.Read(t.Context(), "secret/data/missing", 0)
		c.Test(t.Context(), &vault.Reference{Path: "secret/data/app", Key: "key"})
		_ = c.RenewLogin(t.Context())
		synctest.Wait()
		var names []string
		for _, span := range spans.Ended() {
			names = append(names, span.Name())
		}
		slices.Sort(names)
		want := []string{
			"GET /v1/sys/health", "GET /v1/sys/internal/ui/mounts/{path}", "GET /v1/sys/mounts", "GET /v1/{mount}/data/{path}",
			"POST /v1/auth/token/revoke-self", "POST /v1/auth/{mount}/login",
		}
		if got := slices.Compact(names); !slices.Equal(got, want) {
			t.Errorf("spans are %q, want %q", got, want)
		}
	})
}
