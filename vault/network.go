package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// transportError turns an error of net/http into ErrUnreachable, or into ctx's error when the
// caller left.
func (c *Client) transportError(ctx context.Context, doing string, err error) error {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		err = urlErr.Err // without the URL
	}
	switch {
	case ctx.Err() == nil:
		return &CallError{Sentinel: ErrUnreachable, Doing: doing,
			Remedy: networkRemedy(err, c.proxy()), Cause: loggable(err), Reach: reachOf(err)}
	case errors.Is(context.Cause(ctx), ErrTimeout):
		return TimeoutError(doing)
	}
	return fmt.Errorf("%s: %w", doing, ctx.Err())
}

// TimeoutError is the error of a call that Vault did not answer in time.
func TimeoutError(doing string) error {
	return &CallError{Sentinel: ErrUnreachable, Doing: doing, Cause: ErrTimeout, Reach: ReachTime,
		Remedy: "check that Vault is up and that a firewall lets the connection through, or " +
			"raise the timeout"}
}

// reachOf tells a connection that could not be made, which no path causes, from an answer that did
// not come.
func reachOf(err error) Reach {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return ReachNetwork
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || isCut(err) {
		return ReachTime
	}
	return ReachNetwork
}

// isCut reports whether the connection ended before the answer did. A proxy may cut it because of
// the path.
func isCut(err error) bool {
	for _, cut := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, cut) {
			return true
		}
	}
	return false
}

// loggable returns err when it comes from the network, the system or TLS. Of any other it returns
// the type alone: net/http quotes the peer in some errors.
func loggable(err error) error {
	var (
		network net.Error
		system  syscall.Errno
		record  tls.RecordHeaderError
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		file    *os.PathError
		proxy   *proxyError
	)
	for _, target := range []any{&network, &system, &record, &cert, &unknown, &name, &invalid,
		&file, &proxy} {
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
func networkRemedy(err error, proxy string) string {
	var (
		unknownAuthority x509.UnknownAuthorityError
		wrongName        x509.HostnameError
		invalidCert      x509.CertificateInvalidError
		notTLS           tls.RecordHeaderError
		noName           *net.DNSError
		timeout          net.Error
		pathErr          *os.PathError
		refused          *proxyError
	)
	switch {
	case errors.As(err, &refused):
		return proxyRemedy(refused.status, proxy)
	case isProxyConnect(err):
		return "the proxy of the environment, " + proxy +
			", cannot be reached: check HTTPS_PROXY and HTTP_PROXY, or add Vault's host to NO_PROXY"
	case errors.Is(err, ErrAddressNotAllowed):
		return "the host resolves to an address that may not be connected to: have the operator " +
			"add it to test_connection.allow"
	case errors.As(err, &unknownAuthority):
		return "the certificate is signed by an unknown authority: set tls.ca_file to the CA " +
			"that signed it"
	case errors.As(err, &wrongName):
		return "the certificate is for another name: fix the address, or set tls.server_name"
	case errors.As(err, &invalidCert):
		return "the certificate is not valid, perhaps expired: renew it, and check the clock"
	case errors.As(err, &notTLS), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "the server does not speak TLS: write the address with http://, or check the port"
	case isTLSAlert(err):
		return alertRemedy(err)
	case errors.As(err, &pathErr):
		return "make the files tls.client_cert_file and tls.client_key_file readable"
	case errors.As(err, &noName):
		return "the host name of the address does not resolve: check the address and the DNS"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "the sidecar has no file descriptor left: raise its limit (ulimit -n), or close " +
			"idle connections to it"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at the address: check host and port, and that Vault runs"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "the host does not answer: check the address and the firewall"
	}
	return "check the address, the network and that Vault runs"
}

// isTLSAlert reports whether the peer ended the handshake with an alert. It does not look for
// tls.AlertError, which crypto/tls returns for QUIC only.
func isTLSAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// alertRemedy says what to change after an alert, whose description is crypto/tls's own text.
func alertRemedy(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "certificate required"):
		// Go does not even send a certificate whose CA the server does not name.
		return "the server wants a client certificate: set tls.client_cert_file and " +
			"tls.client_key_file, or, if they are set, replace " +
			"them by a pair that is signed by a CA that the server trusts"
	case strings.Contains(text, "certificate"), strings.Contains(text, "access denied"):
		return "the server refused the client certificate, which may be expired or signed by a " +
			"CA that it does not trust: " +
			"replace tls.client_cert_file and tls.client_key_file"
	case strings.Contains(text, "unrecognized name"):
		return "the server does not know the name that it is asked for: fix the address, or set " +
			"tls.server_name"
	case strings.Contains(text, "protocol version"):
		return "the server does not speak TLS 1.2 or newer: raise tls_min_version of Vault's listener"
	}
	return "the server refused the TLS handshake: check tls.client_cert_file, " +
		"tls.client_key_file and tls.server_name"
}

// isProxyConnect reports whether the connection to a proxy failed.
func isProxyConnect(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "proxyconnect"
}

// proxyRemedy says what to change when a proxy does not connect us to Vault.
func proxyRemedy(status int, proxy string) string {
	answered := "the proxy of the environment, " + proxy + ", answered HTTP " + strconv.Itoa(status)
	switch {
	case status == http.StatusProxyAuthRequired:
		return answered + ": put its credentials into HTTPS_PROXY, or add Vault's host to NO_PROXY"
	case status >= 500:
		return answered + ", for it does not reach Vault: check the address, or add Vault's host " +
			"to NO_PROXY"
	}
	return answered + ": let it connect to Vault, or add Vault's host to NO_PROXY"
}
