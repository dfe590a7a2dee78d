package server

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

func TestARequestWithoutAPeerIsRefused(t *testing.T) {
	if _, err := callerOf(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a request without a peer: %v", err)
	}
}

func TestAPanicIsAnErrorWithoutItsValue(t *testing.T) {
	var log bytes.Buffer
	s, err := New(Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.cache.Close()
	info := &grpc.UnaryServerInfo{Server: s, FullMethod: "/secretsidecar.v1.SecretService/Resolve"}
	_, err = s.finishUnary(t.Context(), nil, info, func(context.Context, any) (any, error) { panic("top-secret") })
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "top-secret") {
		t.Errorf("the caller gets %v", err)
	}
	if text := log.String(); !strings.Contains(text, "panicked") || strings.Contains(text, "top-secret") {
		t.Errorf("the log says %s", text)
	}
}

func TestACallerOverItsLimitIsToldWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, caller := newCallerMeter(), unixsocket.Peer{UID: 1000}
		limits := CallerLimits{PerSecond: 100}
		ask := func(secrets int) *problem {
			err := m.enter(caller, limits, secrets)
			if err == nil {
				m.leave(caller)
				return nil
			}
			return err
		}
		if refused := ask(maxBatch); refused != nil {
			t.Fatal(refused)
		}
		refused := ask(200)
		if refused == nil || refused.retryDelay().AsDuration() != 2*time.Second {
			t.Fatalf("200 secrets at 100 a second: %v, retry after %v, want 2s", refused, refused.retryDelay())
		}
		if again := ask(200); again.retryDelay().AsDuration() != 2*time.Second {
			t.Fatalf("a refusal has cost something: retry after %v", again.retryDelay())
		}
		time.Sleep(refused.retryDelay().AsDuration())
		if refused := ask(200); refused != nil {
			t.Fatalf("after that: %v", refused)
		}
	})
}

func TestCallersThatAskNoMoreAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newCallerMeter()
		for pid := range int32(3 * manyCallers) {
			askOnce(t, m, pid)
		}
		time.Sleep(2 * idleCaller)
		for pid := range int32(4 * manyCallers) {
			askOnce(t, m, -pid-1)
		}
		if len(m.known) > 4*manyCallers {
			t.Errorf("%d callers are remembered", len(m.known))
		}
	})
}

func TestANewCallerCostsTheSameHoweverManyThereAre(t *testing.T) {
	const callers = 40_000 // all of them have just asked, so none can be forgotten
	m := newCallerMeter()
	for pid := range int32(callers) {
		askOnce(t, m, pid)
	}
	if m.seen > 2*callers {
		t.Errorf("%d new callers made the meter look at %d, want two for each at most", callers, m.seen)
	}
}

func askOnce(t *testing.T, m *callerMeter, pid int32) {
	t.Helper()
	caller := unixsocket.Peer{PID: pid}
	if err := m.enter(caller, CallerLimits{InFlight: 1}, 1); err != nil {
		t.Fatal(err)
	}
	m.leave(caller)
}
