package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// Authority is a certificate authority for client certificates.
type Authority struct {
	// PEM is its certificate.
	PEM string

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// ClientCertificate is a client certificate and its key.
type ClientCertificate struct {
	// PEM and KeyPEM are both in PEM format.
	PEM, KeyPEM string
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: Unique("authority")}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	a.certificate, a.key = a.sign(t, template)
	a.PEM = inPEM("CERTIFICATE", a.certificate.Raw)
	return a
}

// Issue makes a certificate for a client of that name, which is good until the time.
func (a *Authority) Issue(t testing.TB, commonName string, until time.Time) ClientCertificate {
	t.Helper()
	certificate, key := a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: commonName},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotAfter: until})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return ClientCertificate{PEM: inPEM("CERTIFICATE", certificate.Raw),
		KeyPEM: inPEM("PRIVATE KEY", der)}
}

// sign signs with the authority's key, or the first time with the new one.
func (a *Authority) sign(t testing.TB, template *x509.Certificate) (*x509.Certificate,
	*ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-24 * time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

func inPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (c ClientCertificate) tls(t testing.TB) []tls.Certificate {
	t.Helper()
	if c.PEM == "" {
		return nil
	}
	pair, err := tls.X509KeyPair([]byte(c.PEM), []byte(c.KeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{pair}
}
