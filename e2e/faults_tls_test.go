package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// A CA, a client certificate or its key is replaced on disk, without a restart.

// authority is a CA of a test's own.
type authority struct {
	sandbox     *sandbox
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pem         string
}

func (s *sandbox) newAuthority(name string) *authority {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	s.must(err)
	certificate, err := x509.ParseCertificate(der)
	s.must(err)
	return &authority{sandbox: s, key: key, certificate: certificate, pem: pemOf(der)}
}

// pair is a certificate and its key, in PEM.
type pair struct{ certificate, key string }

// issue makes a certificate that a server at 127.0.0.1 and a client can show.
func (a *authority) issue() pair {
	a.sandbox.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.sandbox.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "e2e"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	a.sandbox.must(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	a.sandbox.must(err)
	return pair{pemOf(der),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))}
}

// tlsSetup is a sidecar that speaks TLS with the proxy before its Vault, and shows it a client
// certificate.
type tlsSetup struct {
	*setup
	settings atomic.Pointer[tls.Config] // the server's for new connections
	shown    atomic.Int64               // connections on which a client certificate was taken
}

// newTLSSetup starts one. Its files are ca.pem, client.pem and client.key of the sandbox.
func newTLSSetup(t *testing.T) (*tlsSetup, *authority) {
	t.Helper()
	s := newSandbox(t)
	ca := s.newAuthority("first")
	v := vaulttest.Dev(t)
	c := &tlsSetup{setup: &setup{sandbox: s, vault: v, login: s.defaultLogin(v)}}
	c.trust(ca, ca)
	c.proxy = s.openProxy(v, func(server *httptest.Server) {
		server.EnableHTTP2 = true
		server.TLS = &tls.Config{MinVersion: tls.VersionTLS12,
			NextProtos: []string{"h2", "http/1.1"},
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				return c.settings.Load(),
					nil
			}}
		server.StartTLS()
	})
	client := ca.issue()
	lines := "tls: {ca_file: " + s.write("ca.pem", ca.pem) + ", client_cert_file: " +
		s.write("client.pem", client.certificate) +
		", client_key_file: " + s.write("client.key", client.key) + "}"
	s.writeSecret(v, "secret/data/app", "key", s.newSecret())
	c.sidecar = s.start("--config",
		s.config(c.login.connection("prod", c.proxy.address, "timeout: 2s", lines)))
	c.requireHealedNow()
	return c, ca
}

// trust replaces the TLS settings of the server: it shows a certificate of one CA, and accepts
// client certificates of another.
func (c *tlsSetup) trust(server, clients *authority) {
	c.t.Helper()
	shown := server.issue()
	certificate, err := tls.X509KeyPair([]byte(shown.certificate), []byte(shown.key))
	c.must(err)
	pool := x509.NewCertPool()
	pool.AddCert(clients.certificate)
	c.settings.Store(&tls.Config{MinVersion: tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{certificate}, ClientCAs: pool,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true, // a resumed session would not be verified again
		VerifyConnection: func(tls.ConnectionState) error {
			c.shown.Add(1)
			return nil
		}})
	if c.proxy != nil {
		c.proxy.server.CloseClientConnections()
	}
}

// requireHealedNow asks until a fresh value comes. There is no direct client, because nobody else
// has a certificate.
func (c *tlsSetup) requireHealedNow() {
	c.t.Helper()
	requireHealed(c.t, nil, fresh(c.sidecar, "", "secret/data/app/key"))
}

// requireGoesOn fails the test unless reads on new connections succeed, for longer than it takes to
// notice a file.
func (c *tlsSetup) requireGoesOn(what string) {
	c.t.Helper()
	connections := c.shown.Load()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for range 24 { // 6 s
		<-tick.C
		c.proxy.server.CloseClientConnections() // a read that is under way on one may fail
		var last error
		eventually(c.t, what+", a read on a new connection succeeds", func() bool {
			if err := fresh(c.sidecar, "", "secret/data/app/key")(c.t.Context()); err != nil {
				last = err
				return false
			}
			return true
		})
		if last != nil {
			c.t.Logf("%s, until a read succeeded: %v", what, last)
		}
	}
	if c.shown.Load() == connections {
		c.t.Errorf("%s: no new connection was made", what)
	}
}

func TestACAThatIsReplacedOnDiskIsTakenUp(t *testing.T) {
	t.Parallel()
	t.Run("the file changes before the server, as in a rotation that was planned",
		func(t *testing.T) {
			t.Parallel()
			c, first := newTLSSetup(t)
			second := c.newAuthority("second")
			c.write("ca.pem", first.pem+second.pem)
			c.requireGoesOn("with both CAs in the file")
			c.trust(second, first)
			c.requireHealedNow()
		})
	t.Run("the server changes first, and nothing can work until the file follows",
		func(t *testing.T) {
			t.Parallel()
			c, first := newTLSSetup(t)
			second := c.newAuthority("second")
			c.trust(second, first)
			eventually(t, "the server is not trusted",
				func() bool {
					return fresh(c.sidecar, "", "secret/data/app/key")(t.Context()) != nil
				})
			c.write("ca.pem", second.pem)
			c.requireHealedNow()
		})
	t.Run("a broken file changes nothing, and the next one is taken up", func(t *testing.T) {
		t.Parallel()
		c, first := newTLSSetup(t)
		c.write("ca.pem", "this is no certificate")
		c.requireGoesOn("with a broken CA file")
		second := c.newAuthority("second")
		c.trust(second, first)
		c.write("ca.pem", second.pem)
		c.requireHealedNow()
	})
}

func TestAClientCertificateThatIsReplacedOnDiskIsTakenUp(t *testing.T) {
	t.Parallel()
	for _, broken := range []string{"client.pem", "client.key"} {
		t.Run("a broken "+broken+" changes nothing", func(t *testing.T) {
			t.Parallel()
			c, _ := newTLSSetup(t)
			c.write(broken, "this is neither")
			c.requireGoesOn("with a broken " + broken)
		})
	}
	for name, order := range map[string][2]string{
		"the certificate first": {"client.pem", "client.key"},
		"the key first":         {"client.key", "client.pem"},
	} {
		t.Run("one file after the other, "+name, func(t *testing.T) {
			t.Parallel()
			c, first := newTLSSetup(t)
			second := c.newAuthority("second")
			next := second.issue()
			contents := map[string]string{"client.pem": next.certificate, "client.key": next.key}
			c.write(order[0], contents[order[0]])
			c.requireGoesOn("with two files that do not belong together yet") // by the old pair
			c.trust(first, second)
			c.write(order[1], contents[order[1]])
			c.requireHealedNow()
		})
	}
}

func TestFilesOfTLSThatAreReplacedInPlaceOrByALinkAreTakenUp(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(s *sandbox, file, content string){
		"in place": func(s *sandbox, file,
			content string) {
			s.must(os.WriteFile(s.path(file), []byte(content), 0o600))
		},
		"by a link to another file": func(s *sandbox, file, content string) {
			s.must(os.Remove(s.path(file)))
			s.must(os.Symlink(s.write(file+".linked", content), s.path(file)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := newTLSSetup(t)
			second := c.newAuthority("second")
			next := second.issue()
			c.trust(second, second)
			replace(c.sandbox, "ca.pem", second.pem)
			replace(c.sandbox, "client.pem", next.certificate)
			replace(c.sandbox, "client.key", next.key)
			c.requireHealedNow()
		})
	}
}
