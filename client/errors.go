package client

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// SidecarUnreachable is the only reason that comes from this package and not from the sidecar: no
// sidecar took the call within its deadline.
const SidecarUnreachable = "SIDECAR_UNREACHABLE"

// reason is what errors.Is compares an Error with.
type reason string

// Error implements error.
func (r reason) Error() string { return string(r) }

// Each of these is an Error's reason, for errors.Is. docs/errors.md says what each means and what
// to do.
const (
	ErrInvalidPath           = reason("INVALID_PATH")
	ErrInvalidRequest        = reason("INVALID_REQUEST")
	ErrConnectionRequired    = reason("CONNECTION_REQUIRED")
	ErrConnectionNotFound    = reason("CONNECTION_NOT_FOUND")
	ErrSecretNotFound        = reason("SECRET_NOT_FOUND")
	ErrKeyNotFound           = reason("KEY_NOT_FOUND")
	ErrVersionDeleted        = reason("VERSION_DELETED")
	ErrVersionDestroyed      = reason("VERSION_DESTROYED")
	ErrCallerNotAllowed      = reason("CALLER_NOT_ALLOWED")
	ErrProjectRequired       = reason("PROJECT_REQUIRED")
	ErrProjectNotAllowed     = reason("PROJECT_NOT_ALLOWED")
	ErrVaultPermissionDenied = reason("VAULT_PERMISSION_DENIED")
	ErrLoginRejected         = reason("LOGIN_REJECTED")
	ErrNotKVv2               = reason("NOT_KV_V2")
	ErrRateLimited           = reason("RATE_LIMITED")
	ErrOverloaded            = reason("OVERLOADED")
	ErrSecretTooLarge        = reason("SECRET_TOO_LARGE")
	ErrVaultUnreachable      = reason("VAULT_UNREACHABLE")
	ErrVaultSealed           = reason("VAULT_SEALED")
	ErrVaultRateLimited      = reason("VAULT_RATE_LIMITED")
	ErrLoginPending          = reason("LOGIN_PENDING")
	ErrAuditFailed           = reason("AUDIT_FAILED")
	ErrScanDisabled          = reason("SCAN_DISABLED")
	ErrFleetUnreachable      = reason("FLEET_UNREACHABLE")
	ErrShuttingDown          = reason("SHUTTING_DOWN")
	ErrDeadlineExceeded      = reason("DEADLINE_EXCEEDED")
	ErrCancelled             = reason("CANCELLED")
	ErrInternal              = reason("INTERNAL")
	ErrSidecarUnreachable    = reason(SidecarUnreachable)
)

// Error is why a call failed. It never holds a secret. errors.Is finds the reason, as in
// errors.Is(err, client.ErrSecretNotFound), and the context's error where a deadline ended the
// call.
type Error struct {
	// Reason is one of docs/errors.md, or SidecarUnreachable; empty for what gRPC itself refused.
	Reason string
	// Message says what to do next.
	Message string
	// Reference is the reference that failed; empty when the call as a whole failed.
	Reference string
	// RetryAfter is when the same call may succeed; 0 when it will not by itself.
	RetryAfter time.Duration
	// Violations names the faulty fields of an INVALID_REQUEST or INVALID_PATH.
	Violations []Violation

	code  codes.Code
	cause error
}

// Violation is one faulty field of a request.
type Violation struct{ Field, Description string }

// Error implements error.
func (e *Error) Error() string {
	var text strings.Builder
	if e.Reference != "" {
		fmt.Fprintf(&text, "resolve %s: ", e.Reference)
	}
	if e.Reason != "" {
		text.WriteString(e.Reason + ": ")
	}
	text.WriteString(e.Message)
	return text.String()
}

// Is reports whether target is this error's reason.
func (e *Error) Is(target error) bool {
	r, ok := target.(reason)
	return ok && string(r) == e.Reason
}

// Unwrap returns the cause: a context's error, or the status that gRPC brought.
func (e *Error) Unwrap() error { return e.cause }

// BatchError says which of several references failed. errors.Is and errors.As look at each of them.
type BatchError struct {
	// Failed holds the errors, under the names that GetAll was given, or under the place in the
	// object of ResolveObject as a JSON pointer (RFC 6901).
	Failed map[string]*Error
}

// Error implements error. It names every reference that failed.
func (e *BatchError) Error() string {
	lines := make([]string, 0, len(e.Failed))
	for _, name := range e.names() {
		lines = append(lines, fmt.Sprintf("%s: %v", name, e.Failed[name]))
	}
	return fmt.Sprintf("%d of the references failed: %s", len(lines), strings.Join(lines, "; "))
}

// Unwrap returns the errors in the order of their names.
func (e *BatchError) Unwrap() []error {
	all := make([]error, 0, len(e.Failed))
	for _, name := range e.names() {
		all = append(all, e.Failed[name])
	}
	return all
}

func (e *BatchError) names() []string {
	names := make([]string, 0, len(e.Failed))
	for name := range e.Failed {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// errorOf translates what a call returned.
func (c *Client) errorOf(ctx context.Context, err error) *Error {
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	answer := status.Convert(err)
	e := &Error{Message: answer.Message(), code: answer.Code(), cause: err}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason = detail.GetReason()
		case *errdetails.RetryInfo:
			e.RetryAfter = detail.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, field := range detail.GetFieldViolations() {
				e.Violations = append(e.Violations,
					Violation{field.GetField(), field.GetDescription()})
			}
		}
	}
	switch {
	case e.Reason == "":
		return c.withoutReason(ctx, e)
	case e.code == codes.DeadlineExceeded:
		// The sidecar's clock may say so a moment before ours does.
		e.cause = errors.Join(context.DeadlineExceeded, err)
	}
	return e
}

// withoutReason explains an error that the sidecar did not send.
func (c *Client) withoutReason(ctx context.Context, e *Error) *Error {
	ended := ctx.Err()
	switch {
	case c.isClosed():
		e.Message = "the client is closed: open another one"
	case errors.Is(ended, context.Canceled):
		e.Reason, e.cause = string(ErrCancelled), ended
		e.Message = "the caller gave up before the sidecar answered"
	case e.code == codes.Unavailable, ended != nil && c.dialError() != nil:
		return c.unreachable(errors.Join(ended, e.cause))
	case ended != nil:
		e.Reason, e.cause = string(ErrDeadlineExceeded), ended
		e.Message = "the sidecar did not answer in time: give the call more time, or look at the " +
			"sidecar's log"
	}
	return e
}

// itemError translates what a batch says of one item.
func itemError(said *secretsidecarv1.ResolveError) *Error {
	code := codes.Code(uint32(said.GetCode())) // #nosec G115 -- a google.rpc.Code
	return &Error{
		Reason: said.GetReason(), Message: said.GetMessage(),
		RetryAfter: said.GetRetryDelay().AsDuration(),
		code:       code, cause: status.Error(code, said.GetMessage()),
	}
}
