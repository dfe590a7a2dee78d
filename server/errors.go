package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// errorDomain is the domain of every google.rpc.ErrorInfo; see "Errors" of docs/contract.md.
const errorDomain = "secretsidecar"

// defaultRetryAfter is the RetryInfo of an error that knows no better.
const defaultRetryAfter = time.Second

// auditRetryAfter is when a disk may have room again.
const auditRetryAfter = 5 * time.Second

// problem is an error as clients see it; see "Errors" of docs/contract.md. The message is public;
// it never holds a secret, a credential or Vault's own text.
type problem struct {
	code       codes.Code
	reason     string
	message    string
	retryAfter time.Duration                           // for what may pass by itself; zero is the default
	violations []*errdetails.BadRequest_FieldViolation // for INVALID_REQUEST and INVALID_PATH
	cause      error                                   // for the log at debug level
}

// Error implements error.
func (p *problem) Error() string { return p.reason + ": " + p.message }

// Unwrap returns the cause.
func (p *problem) Unwrap() error { return p.cause }

// GRPCStatus makes grpc send the problem with its details.
func (p *problem) GRPCStatus() *status.Status {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: p.reason, Domain: errorDomain}}
	if delay := p.retryDelay(); delay != nil {
		details = append(details, &errdetails.RetryInfo{RetryDelay: delay})
	}
	if len(p.violations) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: p.violations})
	}
	plain := status.New(p.code, p.message)
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		return plain
	}
	return detailed
}

// retryDelay is when the same request may succeed; nil when it will not by itself.
func (p *problem) retryDelay() *durationpb.Duration {
	switch {
	case p.code != codes.Unavailable && p.reason != reasonRateLimited && p.reason != reasonOverloaded:
		return nil
	case p.retryAfter > 0:
		return durationpb.New(p.retryAfter)
	}
	return durationpb.New(defaultRetryAfter)
}

// resolveError is the same problem inside an answer.
func (p *problem) resolveError() *secretsidecarv1.ResolveError {
	return &secretsidecarv1.ResolveError{
		Code: int32(p.code), Reason: p.reason, Message: p.message, RetryDelay: p.retryDelay(), // #nosec G115 -- 17 codes
	}
}

const reasonCallerNotAllowed = "CALLER_NOT_ALLOWED"

// The reasons of RESOURCE_EXHAUSTED that pass by themselves.
const (
	reasonRateLimited = "RATE_LIMITED"
	reasonOverloaded  = "OVERLOADED"
)

// reasonCancelled says that the client gave up.
const reasonCancelled = "CANCELLED"

// reasonOf is the contract's error table for what Vault's client and the cache report.
var reasonOf = []struct {
	err     error
	code    codes.Code
	reason  string
	message string
}{
	{vault.ErrNotFound, codes.NotFound, "SECRET_NOT_FOUND", "Vault has no such secret or version: check the path"},
	{vault.ErrVersionDeleted, codes.NotFound, "VERSION_DELETED", "this version is deleted: undelete it in Vault or ask for another"},
	{vault.ErrVersionDestroyed, codes.NotFound, "VERSION_DESTROYED", "this version is destroyed for good: ask for another"},
	{vault.ErrPermissionDenied, codes.PermissionDenied, "VAULT_PERMISSION_DENIED", "the connection's role may not read this secret: add it to the role's policy in Vault"},
	{vault.ErrNotKVv2, codes.FailedPrecondition, "NOT_KV_V2", "no KV version 2 secrets engine answers at this path: check the mount, or upgrade it to version 2"},
	{vault.ErrInvalidPath, codes.InvalidArgument, "INVALID_PATH", "Vault refuses this path as malformed: check it for unusual characters"},
	{vault.ErrTooLarge, codes.ResourceExhausted, "SECRET_TOO_LARGE", "the secret is larger than 4 MiB: split it in Vault"},
	{vault.ErrOverloaded, codes.ResourceExhausted, reasonOverloaded, "too many large secrets are read at once: retry later"},
	{vault.ErrUnreachable, codes.Unavailable, "VAULT_UNREACHABLE", "Vault cannot be reached: check its address, the network and Vault itself"},
	{vault.ErrSealed, codes.Unavailable, "VAULT_SEALED", "Vault is sealed or not initialised: unseal it"},
	{vault.ErrRateLimited, codes.Unavailable, "VAULT_RATE_LIMITED", "Vault limits the rate of requests: retry later, or raise its quota"},
	{vault.ErrLoginPending, codes.Unavailable, "LOGIN_PENDING", "the login to Vault is not done yet: retry soon"},
	{vault.ErrLoginRejected, codes.FailedPrecondition, "LOGIN_REJECTED", "Vault rejected the login: check how the connection logs in"},
	{vault.ErrClosed, codes.Unavailable, "SHUTTING_DOWN", "the sidecar is shutting down: retry against the next one"},
	{cache.ErrClosed, codes.Unavailable, "SHUTTING_DOWN", "the sidecar is shutting down: retry against the next one"},
	{cache.ErrOverloaded, codes.ResourceExhausted, reasonOverloaded, "too many requests wait for Vault on this connection: retry later, or raise max_waiting"},
}

// problemOf translates any error of a handler. An error that it does not know is INTERNAL, without
// its text.
func problemOf(err error) *problem {
	if known, ok := errors.AsType[*problem](err); ok {
		return known
	}
	for _, row := range reasonOf {
		if errors.Is(err, row.err) {
			return withRemedy(&problem{code: row.code, reason: row.reason, message: row.message, cause: err}, err)
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{code: codes.DeadlineExceeded, reason: "DEADLINE_EXCEEDED", message: "the caller's deadline passed", cause: err}
	case errors.Is(err, context.Canceled):
		return &problem{code: codes.Canceled, reason: reasonCancelled, message: "the caller cancelled the request", cause: err}
	default:
		return errInternal(err)
	}
}

// withRemedy replaces the table's general advice by the particular one, where there is one.
func withRemedy(p *problem, err error) *problem {
	call, ok := errors.AsType[*vault.CallError](err)
	if !ok {
		return p
	}
	p.retryAfter = call.RetryAfter
	if call.Remedy != "" {
		p.message = call.Sentinel.Error() + ": " + call.Remedy
	}
	return p
}

// errOnConnection says of which connection an error is, where the request named none.
func errOnConnection(name string, err error) *problem {
	p := *problemOf(err)
	p.message = "connection " + quote(name) + ": " + p.message
	return &p
}

func errInternal(cause error) *problem {
	return &problem{code: codes.Internal, reason: "INTERNAL", message: "the sidecar failed: see its log", cause: cause}
}

// field names what is wrong with one field of a request.
func field(name, description string) *errdetails.BadRequest_FieldViolation {
	return &errdetails.BadRequest_FieldViolation{Field: name, Description: description}
}

func errInvalidRequest(violations ...*errdetails.BadRequest_FieldViolation) *problem {
	first := violations[0]
	return &problem{
		code: codes.InvalidArgument, reason: "INVALID_REQUEST",
		message: first.GetField() + ": " + first.GetDescription(), violations: violations,
	}
}

func errInvalidPath(err error) *problem {
	return &problem{
		code: codes.InvalidArgument, reason: "INVALID_PATH", message: err.Error(), cause: err,
		violations: []*errdetails.BadRequest_FieldViolation{field("path", err.Error())},
	}
}

// errConnectionRequired is told how many connections are there for the caller, and does not tell
// how many there are for others.
func errConnectionRequired(visible int) *problem {
	message := "several connections are configured: name one in the request's connection field"
	if visible == 0 {
		message = "no connection is configured: add one to the sidecar's configuration"
	}
	return &problem{code: codes.InvalidArgument, reason: "CONNECTION_REQUIRED", message: message}
}

func errConnectionNotFound(name string) *problem {
	return &problem{
		code: codes.NotFound, reason: "CONNECTION_NOT_FOUND",
		message: "no connection is called " + quote(name) + ": see ListConnections",
	}
}

func errKeyNotFound(key string) *problem {
	return &problem{
		code: codes.NotFound, reason: "KEY_NOT_FOUND",
		message: "the secret has no key " + quote(key) + ": check the reference's last segment",
	}
}

func errCallerNotAllowed(caller unixsocket.Peer, want access) *problem {
	on := " on connection " + quote(want.asked)
	switch {
	case want.connection == anyConnection:
		on = " on every connection"
	case want.asked == "":
		on = ""
	}
	return &problem{
		code: codes.PermissionDenied, reason: reasonCallerNotAllowed,
		message: fmt.Sprintf("no rule lets uid %d (gid %d) call %s%s: extend its rule, or add one, under callers in the sidecar's configuration",
			caller.UID, caller.GID, want.method, on),
	}
}

// errCallersPath does not name the path, and is the same whatever Vault has there.
func errCallersPath(caller unixsocket.Peer) *problem {
	return &problem{
		code: codes.PermissionDenied, reason: reasonCallerNotAllowed,
		message: fmt.Sprintf("no rule lets uid %d (gid %d) read this path: check path and project_id, "+
			"or add a pattern to paths of its rule under callers in the sidecar's configuration", caller.UID, caller.GID),
	}
}

// errConnectionsPath is the same whatever Vault has under the path.
func errConnectionsPath(name string) *problem {
	return errProjectNotAllowed("connection " + quote(name) + " does not give this path to this project: " +
		"check path and project_id, or add a pattern to the connection's paths")
}

func errUnknownCaller() *problem {
	return &problem{
		code: codes.PermissionDenied, reason: reasonCallerNotAllowed,
		message: "the kernel did not say who is calling: connect over the Unix socket",
	}
}

func errProjectRequired(message string) *problem {
	return &problem{code: codes.PermissionDenied, reason: "PROJECT_REQUIRED", message: message}
}

func errProjectNotAllowed(message string) *problem {
	return &problem{code: codes.PermissionDenied, reason: "PROJECT_NOT_ALLOWED", message: message}
}

// errRateLimited says when there is room again; zero is that nobody knows.
func errRateLimited(message string, retryAfter time.Duration) *problem {
	return &problem{code: codes.ResourceExhausted, reason: reasonRateLimited, message: message, retryAfter: retryAfter}
}

func errOverloaded(message string) *problem {
	return &problem{code: codes.ResourceExhausted, reason: reasonOverloaded, message: message}
}

func errAddressNotAllowed() *problem {
	return &problem{
		code: codes.PermissionDenied, reason: reasonCallerNotAllowed,
		message: "spec.address is not among those that may be tested: add its host or network to test_connection.allow in the sidecar's configuration",
	}
}

func errScanDisabled() *problem {
	return &problem{
		code: codes.Unimplemented, reason: "SCAN_DISABLED",
		message: "scanning for leaks is turned off: set scan.enabled in the sidecar's configuration",
	}
}

func errAuditFailed(cause error) *problem {
	return &problem{
		code: codes.Unavailable, reason: "AUDIT_FAILED", cause: cause, retryAfter: auditRetryAfter,
		message: "the request cannot be written to the audit log, which is required: see secret-sidecar connections list, or the sidecar's log",
	}
}

func errBatchTooLarge() *problem {
	return &problem{
		code: codes.ResourceExhausted, reason: "SECRET_TOO_LARGE",
		message: "the batch's values together are larger than 4 MiB: ask for this one in another request",
	}
}

// quote shows a name of the caller's in a message, bounded and without control characters.
func quote(name string) string {
	const most = 64
	if runes := []rune(name); len(runes) > most {
		name = string(runes[:most]) + "…"
	}
	return strconv.Quote(name)
}
