package logging_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/secret-sidecar/secret-sidecar/internal/logging"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is what was written. It is safe for concurrent use.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// plain writes records as text without their time.
func plain(out *output) slog.Handler {
	withoutTime := func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return attr
	}
	options := &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: withoutTime}
	return slog.NewTextHandler(out, options)
}

func TestLinesOfASpanNameIt(t *testing.T) {
	var out output
	log := slog.New(logging.WithTraces(plain(&out))).With("connection", "prod")
	span := trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(span))
	log.InfoContext(ctx, "in a span")
	log.InfoContext(t.Context(), "in none")
	want := "level=INFO msg=\"in a span\" connection=prod " +
		"trace_id=01000000000000000000000000000000 span_id=0200000000000000\n" +
		"level=INFO msg=\"in none\" connection=prod\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// limitedLog is a log whose repeats are limited.
type limitedLog struct {
	*slog.Logger
	repeats *logging.Repeats
	out     *output
}

// count returns how often a text is in the log.
func (l limitedLog) count(part string) int {
	synctest.Wait()
	return strings.Count(l.out.String(), part)
}

// withRepeats runs a test of a limited log in a bubble.
func withRepeats(t *testing.T, test func(t *testing.T, log limitedLog)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		out, repeats := &output{}, logging.NewRepeats()
		test(t, limitedLog{slog.New(repeats.Handler(plain(out))), repeats, out})
	})
}

func TestAnEventThatRepeatsItselfIsWrittenTenTimesAMinuteAndThenOnceMore(t *testing.T) {
	withRepeats(t, func(t *testing.T, log limitedLog) {
		defer log.repeats.Close()
		for i := range 100 {
			log.Warn("changed state", "n", i)
		}
		if n := log.count("changed state"); n != 10 {
			t.Errorf("%d lines at first, want 10", n)
		}
		time.Sleep(time.Minute)
		if n := log.count("n=99 suppressed=89"); n != 1 || log.count("changed state") != 11 {
			t.Errorf("the last one was written %d times, of %d lines", n,
				log.count("changed state"))
		}
		log.Warn("changed state", "n", 100)
		if log.count("n=100\n") != 1 {
			t.Error("the next minute does not begin anew")
		}
	})
}

func TestAQuietMinuteBeginsAnew(t *testing.T) {
	withRepeats(t, func(t *testing.T, log limitedLog) {
		defer log.repeats.Close()
		for range 3 {
			for range 10 {
				log.Error("panicked")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if n := log.count("panicked"); n != 30 {
			t.Errorf("%d lines, want 30", n)
		}
	})
}

func TestEventsAreToldApartByLevelMessageAndConnection(t *testing.T) {
	withRepeats(t, func(t *testing.T, log limitedLog) {
		defer log.repeats.Close()
		for range 20 {
			log.Warn("a")
			log.Error("a")
			log.Warn("b")
			log.With("connection", "prod").WithGroup("g").Warn("a")
			log.Warn("a", "connection", "calm")
		}
		if n := log.count("msg="); n != 50 {
			t.Errorf("%d lines, want 10 of each of 5", n)
		}
	})
}

func TestDebugLinesAndThoseAboutNoConnectionAreNotLimited(t *testing.T) {
	withRepeats(t, func(t *testing.T, log limitedLog) {
		defer log.repeats.Close()
		for range 50 {
			log.Debug("request", "connection", "prod")
			log.Info("configuration reloaded")
		}
		if n := log.count("request") + log.count("reloaded"); n != 100 {
			t.Errorf("%d lines, want 100", n)
		}
	})
}

func TestCloseWritesWhatWasHeldBack(t *testing.T) {
	withRepeats(t, func(t *testing.T, log limitedLog) {
		for i := range 12 {
			log.Warn("state", "n", i)
		}
		log.repeats.Close()
		if log.count("n=11 suppressed=1") != 1 {
			t.Error("the last line is lost")
		}
		log.Info("afterwards")
		if log.count("afterwards") != 1 {
			t.Error("a line after Close is lost")
		}
	})
}

func TestTheContextOfALineThatIsHeldBackMayEnd(t *testing.T) {
	withRepeats(t, func(t *testing.T, log limitedLog) {
		ctx, cancel := context.WithCancel(t.Context())
		for range 12 {
			log.WarnContext(ctx, "state")
		}
		cancel()
		log.repeats.Close()
		if n := log.count("state"); n != 11 {
			t.Errorf("%d lines, want 11", n)
		}
	})
}
