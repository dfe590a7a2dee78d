package vault

import (
	"errors"
	"time"
)

// What can go wrong between the sidecar and Vault. Every error of this package and of those below
// it wraps exactly one of these; callers decide with errors.Is. None of them, and nothing that
// wraps them, holds Vault's own error text, a credential or a secret value.
var (
	// ErrNotFound: Vault has no such secret, or the version never existed.
	ErrNotFound = errors.New("secret not found")
	// ErrVersionDeleted: the version is deleted and can be undeleted.
	ErrVersionDeleted = errors.New("secret version is deleted")
	// ErrVersionDestroyed: the version is destroyed for good.
	ErrVersionDestroyed = errors.New("secret version is destroyed")
	// ErrPermissionDenied: the token's policies do not allow the read, not even after a fresh login
	// where one was due.
	ErrPermissionDenied = errors.New("vault denied the read")
	// ErrNotKVv2: no KV version 2 secrets engine answers at the path.
	ErrNotKVv2 = errors.New("not a KV version 2 path")
	// ErrInvalidPath: Vault refuses the path as malformed.
	ErrInvalidPath = errors.New("vault refused the path as malformed")
	// ErrTooLarge: Vault's answer is larger than MaxAnswerBytes.
	ErrTooLarge = errors.New("vault's answer is too large")
	// ErrOverloaded: too many large answers were being read for this one to be read too.
	ErrOverloaded = errors.New("too many large secrets are read at once")
	// ErrInvalidToken: Vault does not know the token, or no longer.
	ErrInvalidToken = errors.New("vault does not know the token")
	// ErrUnreachable: network error, time-out, 5xx, redirect, an answer that is not Vault's JSON,
	// or one that passes by itself, while a node lags or a mount is upgraded.
	ErrUnreachable = errors.New("vault cannot be reached")
	// ErrSealed: Vault itself answered that it is sealed or not initialised.
	ErrSealed = errors.New("vault is sealed")
	// ErrRateLimited: Vault answered 429.
	ErrRateLimited = errors.New("vault limits the rate of requests")
	// ErrLoginPending: there is no token yet, and the credentials are not known to be bad.
	ErrLoginPending = errors.New("vault login is pending")
	// ErrLoginRejected: Vault refused the credentials, or granted a token that cannot be used.
	ErrLoginRejected = errors.New("vault rejected the login")
	// ErrNotRenewable: the token cannot be renewed, or its policies do not allow it to renew
	// itself.
	ErrNotRenewable = errors.New("the token cannot be renewed")
	// ErrNotAllowed: the token's policies do not allow a lookup that reads do not depend on.
	ErrNotAllowed = errors.New("vault does not tell")
	// ErrClosed: the connection is closed.
	ErrClosed = errors.New("vault connection is closed")
)

// Outage reports whether err means that Vault is out: it cannot be reached, is sealed, or answers
// 429 or 5xx. Only these errors allow a stale copy.
func Outage(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrSealed) ||
		errors.Is(err, ErrRateLimited)
}

// CallError is the type of every error of this package except ErrInvalidReference's: a sentinel
// above, with what a person needs to act on it.
type CallError struct {
	// Sentinel is one of the Err variables above, or wraps one with a text that says more.
	Sentinel error
	// Doing says what was being done, for example "log in".
	Doing string
	// Remedy tells the person what to do next; safe to show to anybody. Empty where the sentinel
	// says it all.
	Remedy string
	// RetryAfter is how long to wait before trying again; 0 means unknown.
	RetryAfter time.Duration
	// Cause is for logs at debug level only: it may name addresses and ports, never credentials or
	// Vault's own error text. May be nil. It is not part of Error's text.
	Cause error
	// Status is the HTTP status of the answer; 0 when there was none.
	Status int
	// Reach is how far the failure reaches.
	Reach Reach
}

// Reach is what a failure says about other calls.
type Reach int

const (
	// ReachNothing means that Vault answered: other calls may expect an answer too.
	ReachNothing Reach = iota
	// ReachPath means that this path failed, and perhaps no other.
	ReachPath
	// ReachNode means that the node which answered failed. Another node, over a new connection, may
	// do better.
	ReachNode
	// ReachNetwork means that no answer came, whatever the path.
	ReachNetwork
	// ReachTime means that no answer came in time, or that the connection ended first. The path may
	// be to blame.
	ReachTime
	// ReachUnasked means that Vault was not asked, so that this says nothing about it.
	ReachUnasked
)

// Error says what was being done and the sentinel's text.
func (e *CallError) Error() string { return e.Doing + ": " + e.Sentinel.Error() }

// Unwrap returns the sentinel, and so hides the cause from errors.Is.
func (e *CallError) Unwrap() error { return e.Sentinel }

// ReachOf returns how far a failure reaches. Only a *CallError says anything about Vault.
func ReachOf(err error) Reach {
	if call, ok := errors.AsType[*CallError](err); ok {
		return call.Reach
	}
	return ReachNothing
}

// Attrs returns the log attributes of an error at info level and above.
func Attrs(err error) []any {
	attrs := []any{"error", err.Error()}
	call, ok := errors.AsType[*CallError](err)
	if !ok {
		return attrs
	}
	if call.Remedy != "" {
		attrs = append(attrs, "remedy", call.Remedy)
	}
	if call.Status != 0 {
		attrs = append(attrs, "status", call.Status)
	}
	return attrs
}

// DebugAttrs returns the log attributes of an error at debug level, which include its cause.
func DebugAttrs(err error) []any {
	attrs := Attrs(err)
	if call, ok := errors.AsType[*CallError](err); ok && call.Cause != nil {
		attrs = append(attrs, "cause", call.Cause.Error())
	}
	return attrs
}

// RetryAfter returns how long to wait before trying again; 0 means unknown.
func RetryAfter(err error) time.Duration {
	if call, ok := errors.AsType[*CallError](err); ok {
		return call.RetryAfter
	}
	return 0
}
