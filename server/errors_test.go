package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// The contract's error table, row by row.
func TestEveryErrorBelowBecomesTheContractsReason(t *testing.T) {
	for _, test := range []struct {
		err    error
		code   codes.Code
		reason string
	}{
		{vault.ErrNotFound, codes.NotFound, "SECRET_NOT_FOUND"},
		{vault.ErrVersionDeleted, codes.NotFound, "VERSION_DELETED"},
		{vault.ErrVersionDestroyed, codes.NotFound, "VERSION_DESTROYED"},
		{vault.ErrPermissionDenied, codes.PermissionDenied, "VAULT_PERMISSION_DENIED"},
		{vault.ErrNotKVv2, codes.FailedPrecondition, "NOT_KV_V2"},
		{vault.ErrInvalidPath, codes.InvalidArgument, "INVALID_PATH"},
		{vault.ErrTooLarge, codes.ResourceExhausted, "SECRET_TOO_LARGE"},
		{vault.ErrUnreachable, codes.Unavailable, "VAULT_UNREACHABLE"},
		{vault.ErrSealed, codes.Unavailable, "VAULT_SEALED"},
		{vault.ErrRateLimited, codes.Unavailable, "VAULT_RATE_LIMITED"},
		{vault.ErrLoginPending, codes.Unavailable, "LOGIN_PENDING"},
		{vault.ErrLoginRejected, codes.FailedPrecondition, "LOGIN_REJECTED"},
		{vault.ErrClosed, codes.Unavailable, "SHUTTING_DOWN"},
		{cache.ErrClosed, codes.Unavailable, "SHUTTING_DOWN"},
		{cache.ErrOverloaded, codes.ResourceExhausted, "OVERLOADED"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
		{context.Canceled, codes.Canceled, "CANCELLED"},
		{errors.New("anything else"), codes.Internal, "INTERNAL"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			got := problemOf(fmt.Errorf("wrapped with private words: %w", test.err))
			if got.code != test.code || got.reason != test.reason {
				t.Errorf("got %v %s, want %v %s", got.code, got.reason, test.code, test.reason)
			}
			if strings.Contains(got.message, "private words") || strings.Contains(got.message, "anything else") {
				t.Errorf("the cause's text is public: %q", got.message)
			}
			wantDetails(t, got)
		})
	}
}

func wantDetails(t *testing.T, p *problem) {
	t.Helper()
	var info, retry bool
	for _, detail := range p.GRPCStatus().Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			info = d.GetDomain() == "secretsidecar" && d.GetReason() == p.reason
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration() > 0
		}
	}
	if !info {
		t.Error("no ErrorInfo")
	}
	if want := p.code == codes.Unavailable || p.reason == "RATE_LIMITED" || p.reason == "OVERLOADED"; retry != want {
		t.Errorf("RetryInfo is %v for %v %s", retry, p.code, p.reason)
	}
}

func TestAnErrorInsideAnAnswerSaysWhenToRetryAsAStatusDoes(t *testing.T) {
	outage := &vault.CallError{Sentinel: vault.ErrUnreachable, RetryAfter: 3 * time.Second}
	for _, test := range []struct {
		err  error
		want time.Duration // zero: unset
	}{
		{outage, 3 * time.Second},
		{vault.ErrSealed, defaultRetryAfter},
		{vault.ErrClosed, defaultRetryAfter},
		{errAuditFailed(errors.New("no room")), auditRetryAfter},
		{cache.ErrOverloaded, defaultRetryAfter},
		{errRateLimited("slow down", 2*time.Second), 2 * time.Second},
		{errRateLimited("wait for an answer", 0), defaultRetryAfter},
		{errOnConnection("prod", outage), 3 * time.Second},
		{errBatchTooLarge(), 0},
		{vault.ErrTooLarge, 0},
		{vault.ErrNotFound, 0},
		{&vault.CallError{Sentinel: vault.ErrLoginRejected, RetryAfter: time.Minute}, 0},
		{context.DeadlineExceeded, 0},
		{context.Canceled, 0},
		{errors.New("anything else"), 0},
	} {
		p := problemOf(test.err)
		inside := p.resolveError().GetRetryDelay()
		if inside.AsDuration() != test.want || (inside == nil) != (test.want == 0) {
			t.Errorf("%v: retry_delay %v, want %v", p, inside, test.want)
		}
		if outside := retryInfo(p).GetRetryDelay(); outside.AsDuration() != test.want {
			t.Errorf("%v: RetryInfo %v, want %v", p, outside, test.want)
		}
	}
}

func retryInfo(p *problem) *errdetails.RetryInfo {
	for _, detail := range p.GRPCStatus().Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info
		}
	}
	return nil
}

func TestAVaultErrorsRemedyIsShownAndItsCauseIsNot(t *testing.T) {
	err := &vault.CallError{Sentinel: vault.ErrLoginRejected, Doing: "log in", Remedy: "set token_num_uses=0", Cause: errors.New("private words")}
	got := problemOf(fmt.Errorf("read: %w", err))
	if !strings.Contains(got.message, "set token_num_uses=0") || strings.Contains(got.message, "private") {
		t.Errorf("message %q", got.message)
	}
}

func TestEveryReasonIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons := []string{"INVALID_REQUEST", "CONNECTION_REQUIRED", "CONNECTION_NOT_FOUND", "KEY_NOT_FOUND", "CALLER_NOT_ALLOWED",
		"PROJECT_REQUIRED", "PROJECT_NOT_ALLOWED", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL"}
	for _, row := range reasonOf {
		reasons = append(reasons, row.reason)
	}
	for _, reason := range reasons {
		if !strings.Contains(string(page), "| `"+reason+"` |") {
			t.Errorf("docs/errors.md has no row for %s", reason)
		}
	}
}
