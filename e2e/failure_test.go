package e2e_test

import (
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// failure is the public part of an error: a code and a reason of the contract's table.
type failure struct {
	code   codes.Code
	reason string
}

// isRetryable reports whether the contract promises to say when to ask again.
func (f failure) isRetryable() bool {
	return f.code == codes.Unavailable || f.reason == "RATE_LIMITED" || f.reason == "OVERLOADED"
}

// recorder takes what a sidecar said, for the leak checker.
type recorder interface{ record(name, text string) }

// requireFailure checks an error against the contract: its code and reason, the domain, a message,
// and the details that belong to it.
func requireFailure(t *testing.T, s recorder, err error, want failure) *status.Status {
	t.Helper()
	got := status.Convert(err)
	s.record("an error of the API", got.Proto().String())
	if got.Code() != want.code {
		t.Fatalf("the answer is %v (%v), want %v", got.Code(), got.Message(), want.code)
	}
	if got.Message() == "" {
		t.Error("the error has no message")
	}
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	var bad *errdetails.BadRequest
	for _, detail := range got.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			info = detail
		case *errdetails.RetryInfo:
			retry = detail
		case *errdetails.BadRequest:
			bad = detail
		}
	}
	if info.GetDomain() != "secretsidecar" || info.GetReason() != want.reason {
		t.Errorf("ErrorInfo is %v, want reason %s in domain secretsidecar", info, want.reason)
	}
	if want.isRetryable() != (retry != nil) {
		t.Errorf("RetryInfo is %v for %v", retry, want)
	}
	if retry != nil && retry.GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("RetryInfo says %v, want a positive delay", retry.GetRetryDelay().AsDuration())
	}
	if want.reason == "INVALID_REQUEST" && len(bad.GetFieldViolations()) == 0 {
		t.Error("INVALID_REQUEST has no field violations")
	}
	return got
}

// codeOf returns the code of an error of the API.
func codeOf(err error) codes.Code { return status.Code(err) }

// failureOf returns the code and the reason of an error, or nil for none. An error that should say
// when to try again, and does not, gets a reason that nobody expects.
func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	said := status.Convert(err)
	failed := &failure{code: said.Code()}
	hasRetry := false
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failed.reason = detail.GetReason()
		case *errdetails.RetryInfo:
			hasRetry = detail.GetRetryDelay().AsDuration() > 0
		}
	}
	if failed.isRetryable() && failed.reason != "" && !hasRetry {
		failed.reason += " without RetryInfo"
	}
	return failed
}
