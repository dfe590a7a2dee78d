package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/secret-sidecar/secret-sidecar/internal/smallfile"
)

const doingTLS = "take up the TLS files"

// MaxCertificateBytes bounds each file of certificates or keys.
const MaxCertificateBytes = 4 << 20

// TLS says how to verify Vault and how to identify the sidecar. The zero value trusts the system's
// CAs and presents no certificate. New reads the files; ReloadTLS reads them again.
type TLS struct {
	// CAFile and CAPEM hold the CA certificates to trust, PEM encoded; when one is given, only
	// these are trusted.
	CAFile, CAPEM string
	// ServerName is the name expected in Vault's certificate; empty is the address's host.
	ServerName string
	// ClientCertFile and ClientKeyFile are the client's certificate and key, PEM encoded: both or
	// none.
	ClientCertFile, ClientKeyFile string
}

// Files returns the files to watch.
func (t TLS) Files() []string {
	var files []string
	for _, file := range []string{t.CAFile, t.ClientCertFile, t.ClientKeyFile} {
		if file != "" {
			files = append(files, file)
		}
	}
	return files
}

// Check reads the files and returns what is wrong with them or with the settings.
func (t TLS) Check() error {
	_, err := t.config()
	return err
}

func (t TLS) config() (*tls.Config, error) {
	roots, err := t.roots()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: t.ServerName}
	if (t.ClientCertFile == "") != (t.ClientKeyFile == "") {
		return nil, errors.New("tls: give both client_cert_file and client_key_file, or none")
	}
	if t.ClientCertFile != "" {
		cert, err := clientCertificate(t.ClientCertFile, t.ClientKeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls: load client_cert_file and client_key_file: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

func clientCertificate(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := smallfile.Read(certFile, MaxCertificateBytes)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := smallfile.Read(keyFile, MaxCertificateBytes)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// roots returns nil, which means the system's CAs, when no CA is given.
func (t TLS) roots() (*x509.CertPool, error) {
	if t.CAFile == "" && t.CAPEM == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if t.CAFile != "" {
		pem, err := smallfile.Read(t.CAFile, MaxCertificateBytes)
		if err != nil {
			return nil, fmt.Errorf("tls: read ca_file: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: ca_file %s holds no PEM certificate", t.CAFile)
		}
	}
	if t.CAPEM != "" && !pool.AppendCertsFromPEM([]byte(t.CAPEM)) {
		return nil, errors.New("tls: the CA given as text holds no PEM certificate")
	}
	return pool, nil
}

// ReloadTLS reads the TLS files again and tries them on Vault. It reports whether the new ones are
// in use. Otherwise the old ones stay, and the error, a *CallError of ErrUnreachable or ctx's own,
// says why. Try again later: perhaps only Vault is missing.
func (c *Client) ReloadTLS(ctx context.Context) (changed bool, err error) {
	if c.pool == nil || len(c.pool.files.Files()) == 0 {
		return false, nil
	}
	next, err := c.pool.files.config()
	if err != nil {
		return false, &CallError{Sentinel: ErrUnreachable, Doing: doingTLS, Cause: err,
			Remedy: "the files cannot be used, perhaps " +
				"one of them is not replaced yet, and what they held before stays in use: mend " +
				"tls.ca_file, or the pair tls.client_cert_file and tls.client_key_file"}
	}
	if sameTLS(c.pool.tls.Load(), next) {
		return false, nil
	}
	transport := c.pool.build(next)
	if err := c.tryTransport(ctx, transport); err != nil {
		transport.CloseIdleConnections()
		return false, err
	}
	c.pool.tls.Store(next)
	old := c.pool.current.Swap(transport)
	old.CloseIdleConnections()
	return true, nil
}

func sameTLS(a, b *tls.Config) bool {
	sameRoots := a.RootCAs == nil && b.RootCAs == nil ||
		a.RootCAs != nil && a.RootCAs.Equal(b.RootCAs)
	if !sameRoots || len(a.Certificates) != len(b.Certificates) {
		return false
	}
	for i := range a.Certificates {
		if !equalChains(a.Certificates[i].Certificate, b.Certificates[i].Certificate) {
			return false
		}
	}
	return true
}

func equalChains(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}
