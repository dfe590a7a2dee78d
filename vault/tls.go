package vault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLS says how to trust Vault and how to show who we are. The zero value trusts the system's CAs and shows
// nothing.
type TLS struct {
	// CAFile and CAPEM hold the CA certificates to trust, PEM encoded; when one is given, only these are
	// trusted. CAFile is read once, by Open.
	CAFile, CAPEM string
	// ServerName is the name expected in Vault's certificate; empty is the address's host.
	ServerName string
	// ClientCertFile and ClientKeyFile are the client's certificate and key, PEM encoded: both or none. They
	// are read anew for each handshake, so that a renewed certificate is taken up.
	ClientCertFile, ClientKeyFile string
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
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(t.ClientCertFile, t.ClientKeyFile)
			if err != nil {
				return nil, fmt.Errorf("load the client certificate: %w", err)
			}
			return &cert, nil
		}
	}
	return config, nil
}

// roots returns nil, the system's CAs, when no CA is given.
func (t TLS) roots() (*x509.CertPool, error) {
	if t.CAFile == "" && t.CAPEM == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
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
