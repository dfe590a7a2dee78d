package conn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// pair is a certificate and its key, PEM encoded.
type pair struct{ cert, key []byte }

// newPair makes a certificate that signs itself, for 127.0.0.1.
func newPair(t *testing.T, name string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"vault.test"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
}

// secured is a Vault over TLS whose certificate can be changed. A secret there holds the name of
// the client's certificate.
type secured struct {
	t       *testing.T
	url     string
	current atomic.Pointer[tls.Config]
	server  *httptest.Server
	dir     string
}

func newSecured(t *testing.T, own pair) *secured {
	t.Helper()
	s := &secured{t: t, dir: t.TempDir()}
	s.server = httptest.NewUnstartedServer(answering(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		secretAnswer(w, name)
	}))
	s.server.Config.ErrorLog = quiet()
	s.server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current.Load(), nil }}
	s.use(own, nil)
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	s.url = s.server.URL
	return s
}

// use makes the server show a certificate, and want one of the clients' when there are any.
// Connections that there are end.
func (s *secured) use(own pair, clients []pair) {
	s.t.Helper()
	cert, err := tls.X509KeyPair(own.cert, own.key)
	if err != nil {
		s.t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if clients != nil {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		for _, client := range clients {
			config.ClientCAs.AppendCertsFromPEM(client.cert)
		}
	}
	s.current.Store(config)
	if s.url != "" {
		s.server.CloseClientConnections()
	}
}

func (s *secured) write(name string, content []byte) string {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file+".next", content, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(file+".next", file); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// open opens a connection with these files, whose changes nobody tells of.
func (s *secured) open(files vault.TLS) *Connection {
	s.t.Helper()
	cfg := configFor(s.url)
	cfg.TLS, cfg.watch = files, noWatch
	cfg.TLS.ServerName = "vault.test"
	return openOn(s.t, cfg)
}

// nameSeen reads over a new connection, and returns the name that the server saw.
func nameSeen(t *testing.T, c *Connection) (string, error) {
	t.Helper()
	c.vault.Reconnect()
	secret, err := c.Read(t.Context(), "secret/data/app", 0)
	if err != nil {
		return "", err
	}
	value, _ := secret.Value("key")
	return value.Text.Reveal(), nil
}

// untilSeen looks at the files anew, and reads, until the server sees the name.
func untilSeen(t *testing.T, c *Connection, want string) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		c.Reload()
		name, err := nameSeen(t, c)
		if err == nil && name == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server sees %q, want %q: %v", name, want, err)
		}
	}
}

func TestACAThatIsReplacedIsTakenUpInEitherOrderAndABrokenFileIsNot(t *testing.T) {
	first, second, third := newPair(t, "first"), newPair(t, "second"), newPair(t, "third")
	s := newSecured(t, first)
	c := s.open(vault.TLS{CAFile: s.write("ca.pem", first.cert)})
	untilSeen(t, c, "nobody")
	s.use(second, nil) // Vault first
	if _, err := nameSeen(t, c); err == nil || !strings.Contains(remedy(err), "tls.ca_file") {
		t.Errorf("a CA that is not trusted: %v, %s", err, remedy(err))
	}
	s.write("ca.pem", second.cert)
	untilSeen(t, c, "nobody")
	for _, content := range []string{"", "no PEM", string(third.cert)} { // and the file first
		s.write("ca.pem", []byte(content))
		if changed, err := c.vault.ReloadTLS(t.Context()); changed || err == nil {
			t.Errorf("a file that does not work is taken up: %v", err)
		}
		if _, err := nameSeen(t, c); err != nil {
			t.Errorf("what worked does not work on: %v", err)
		}
	}
	s.use(third, nil)
	untilSeen(t, c, "nobody")
}

func TestAClientCertificateIsTakenUpOnceBothItsFilesAreReplaced(t *testing.T) {
	own, old, next := newPair(t, "vault"), newPair(t, "old"), newPair(t, "next")
	for name, order := range map[string][2]string{"certificate first": {"client.pem", "client.key"}, "key first": {"client.key", "client.pem"}} {
		t.Run(name, func(t *testing.T) {
			s := newSecured(t, own)
			s.use(own, []pair{old, next})
			c := s.open(vault.TLS{CAPEM: string(own.cert), ClientCertFile: s.write("client.pem", old.cert), ClientKeyFile: s.write("client.key", old.key)})
			untilSeen(t, c, "old")
			content := map[string][]byte{"client.pem": next.cert, "client.key": next.key}
			s.write(order[0], content[order[0]])
			if changed, err := c.vault.ReloadTLS(t.Context()); changed || err == nil || !strings.Contains(remedy(err), "tls.client_key_file") {
				t.Errorf("a half of a pair: changed %v, %v", changed, err)
			}
			if name, err := nameSeen(t, c); err != nil || name != "old" {
				t.Errorf("meanwhile the server sees %q, %v", name, err)
			}
			s.write(order[1], content[order[1]])
			untilSeen(t, c, "next")
		})
	}
}

func TestATLSAlertGetsItsAdvice(t *testing.T) {
	own, known, forged, stranger := newPair(t, "vault"), newPair(t, "known"), newPair(t, "known"), newPair(t, "stranger")
	s := newSecured(t, own)
	s.use(own, []pair{known})
	for name, test := range map[string]struct {
		files vault.TLS
		want  string
	}{
		"no client certificate": {vault.TLS{}, "the server wants a client certificate"},
		"one of a CA that the server does not name": {vault.TLS{ClientCertFile: s.write("stranger.pem", stranger.cert),
			ClientKeyFile: s.write("stranger.key", stranger.key)}, "signed by a CA that the server trusts"},
		"one that only looks right": {vault.TLS{ClientCertFile: s.write("forged.pem", forged.cert),
			ClientKeyFile: s.write("forged.key", forged.key)}, "the server refused the client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configFor(s.url)
			cfg.TLS = test.files
			cfg.TLS.CAPEM, cfg.TLS.ServerName = string(own.cert), "vault.test"
			report, err := TestConfig(t.Context(), cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			if check := report.Checks[0]; check.Status != CheckFailed || !strings.Contains(check.Remedy, test.want) {
				t.Errorf("reach: %+v", check)
			}
		})
	}
}
