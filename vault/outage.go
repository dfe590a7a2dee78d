package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxRetryAfter bounds what a Retry-After header can ask for.
const maxRetryAfter = time.Minute

// outageOf is classify, which marks what was answered: everything but 429, 503 and a redirect may be the fault of
// one path.
func outageOf(r request, resp *http.Response, body []byte) error {
	out := classify(r, resp, body)
	if out == nil {
		return nil
	}
	isRedirect := resp.StatusCode >= 300 && resp.StatusCode < 400
	out.answered = errors.Is(out, ErrUnreachable) && !isRedirect
	return out
}

// classify returns the outage that an HTTP answer reports, and nil for an answer of a working Vault. It goes
// by the status; a page of HTML is a proxy's and not Vault's, whatever its status, except for 429.
func classify(r request, resp *http.Response, body []byte) *CallError {
	doing, status := r.doing, resp.StatusCode
	switch {
	case status == http.StatusInternalServerError && r.answers500 && isVaultBody(status, body):
		return nil
	case status == http.StatusTooManyRequests:
		return &CallError{Sentinel: ErrRateLimited, Doing: doing, RetryAfter: retryAfter(resp),
			Remedy: "wait, or raise the rate limit quota in Vault"}
	case status >= 300 && status < 400:
		return unreachable(doing, "the address answers with a redirect, which is not followed: "+
			"set the address that it leads to", statusError(status))
	case status == http.StatusServiceUnavailable && !isHTML(resp, body):
		return &CallError{Sentinel: ErrSealed, Doing: doing, RetryAfter: retryAfter(resp),
			Remedy: "unseal Vault, or wait until it has a leader"}
	case status >= 500, status == http.StatusPreconditionFailed, status == 472, status == 473:
		out := unreachable(doing, "look into Vault's own log: it answers with a server error", statusError(status))
		out.RetryAfter = retryAfter(resp)
		return out
	case status == http.StatusBadRequest && bytes.Contains(body, []byte("HTTP request to an HTTPS server")):
		return unreachable(doing, "the server speaks TLS: write the address with https://", statusError(status))
	case !isVaultBody(status, body):
		return unreachable(doing, "what answers at the address is not Vault, or a proxy in front of it: "+
			"check the address and the proxy", statusError(status))
	case status == http.StatusBadRequest && bytes.Contains(body, []byte("Upgrading from non-versioned")):
		// A KV mount that is being upgraded to version 2 answers so for a moment.
		return unreachable(doing, "wait until Vault has upgraded the mount", statusError(status))
	}
	return nil
}

// isVaultBody reports whether a body is what Vault sends with such a status: one JSON object, or nothing
// where nothing is to be said.
func isVaultBody(status int, body []byte) bool {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return status == http.StatusNoContent || status == http.StatusBadRequest
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return false
	}
	known := successFields
	if status >= http.StatusBadRequest {
		known = errorFields
	}
	return slices.ContainsFunc(known, func(name string) bool { _, ok := fields[name]; return ok })
}

// One of these stands in every answer of Vault's, and tells it from a gateway's own JSON.
var (
	successFields = []string{"request_id", "data", "auth", "wrap_info", "initialized"}
	errorFields   = []string{"errors", "data", "warnings"}
)

func isHTML(resp *http.Response, body []byte) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") ||
		bytes.HasPrefix(bytes.TrimSpace(body), []byte("<"))
}

// retryAfter reads the Retry-After header: seconds or a date; 0 when there is none.
func retryAfter(resp *http.Response) time.Duration {
	text := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if date, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(date), 0), maxRetryAfter)
	}
	return 0
}

// statusError is an HTTP status as the cause of an error.
type statusError int

// Error implements error.
func (s statusError) Error() string { return fmt.Sprintf("HTTP status %d", int(s)) }

func unreachable(doing, remedy string, cause error) *CallError {
	return &CallError{Sentinel: ErrUnreachable, Doing: doing, Remedy: remedy, Cause: cause}
}

// transportError turns an error of net/http into ErrUnreachable, or into ctx's error when the caller gave up.
func transportError(ctx context.Context, doing string, err error) error {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		err = urlErr.Err // without the URL
	}
	if ctx.Err() == nil {
		return unreachable(doing, networkRemedy(err), loggable(err))
	}
	if cause := context.Cause(ctx); errors.Is(cause, errOperationTimeout) {
		return unreachable(doing, "check that Vault is up and that a firewall lets the connection through, "+
			"or raise the timeout", cause)
	}
	return fmt.Errorf("%s: %w", doing, ctx.Err())
}

// loggable returns err when it is the network's, the system's or TLS's, and else only its type: net/http quotes
// in some errors what the peer sent.
func loggable(err error) error {
	var (
		network net.Error
		system  syscall.Errno
		record  tls.RecordHeaderError
		alert   tls.AlertError
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		file    *os.PathError
	)
	for _, target := range []any{&network, &system, &record, &alert, &cert, &unknown, &name, &invalid, &file} {
		if errors.As(err, target) {
			return err
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("error of type %T", err)
}

// networkRemedy says what to change after a network or TLS error.
func networkRemedy(err error) string {
	var (
		unknownAuthority x509.UnknownAuthorityError
		wrongName        x509.HostnameError
		invalidCert      x509.CertificateInvalidError
		notTLS           tls.RecordHeaderError
		alert            tls.AlertError
		noName           *net.DNSError
		timeout          net.Error
		pathErr          *os.PathError
	)
	switch {
	case errors.Is(err, ErrAddressNotAllowed):
		return "the host resolves to an address that may not be connected to: have the operator add it to test_connection.allow"
	case errors.As(err, &unknownAuthority):
		return "the certificate is signed by an unknown authority: set tls.ca_file to the CA that signed it"
	case errors.As(err, &wrongName):
		return "the certificate is for another name: fix the address, or set tls.server_name"
	case errors.As(err, &invalidCert):
		return "the certificate is not valid, perhaps expired: renew it, and check the clock"
	case errors.As(err, &notTLS), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "the server does not speak TLS: write the address with http://, or check the port"
	case errors.As(err, &alert):
		return "the server refused the TLS handshake: check tls.client_cert_file and tls.client_key_file"
	case errors.As(err, &pathErr):
		return "make the files tls.client_cert_file and tls.client_key_file readable"
	case errors.As(err, &noName):
		return "the host name of the address does not resolve: check the address and the DNS"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "the sidecar has no file descriptor left: raise its limit (ulimit -n), or close idle connections to it"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at the address: check host and port, and that Vault runs"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "the host does not answer: check the address and the firewall"
	}
	return "check the address, the network and that Vault runs"
}
