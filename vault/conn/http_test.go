package conn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// configFor returns a Config for a server that grants a token to every login.
func configFor(address string) Config {
	return Config{Name: "test", Settings: literal(address, "role", "secret"), Timeout: 30 * time.Second}
}

// answering answers logins and revocations as Vault does, and everything else with next.
func answering(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/auth/approle/login":
			fmt.Fprint(w, `{"auth":{"client_token":"hvs.granted","lease_duration":3600,"renewable":true,"token_type":"service"}}`)
		case "/v1/auth/token/revoke-self":
			w.WriteHeader(http.StatusNoContent)
		default:
			next(w, r)
		}
	}
}

func secretAnswer(w http.ResponseWriter, value string) {
	fmt.Fprintf(w, `{"data":{"data":{"key":%q},"metadata":%s}}`, value, `{"created_time":"2026-11-23T19:59:12.515287063Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":2}`)
}

func openOn(t *testing.T, cfg Config) *Connection {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = c.Close(ctx)
	})
	return c
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func TestRequestsCarryWhatVaultNeedsAndPathsArriveUnchanged(t *testing.T) {
	var got atomic.Pointer[http.Request]
	server := serve(t, answering(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r)
		secretAnswer(w, "v")
	}))
	cfg := configFor(server.URL + "/")
	cfg.Namespace = "team-a/"
	c := openOn(t, cfg)
	for _, path := range []string{"secret/data/a b?c#d%e/ü", "secret/data/x/%2e%2e/y", "secret/data/a+b;c&d=e"} {
		if _, err := c.Read(t.Context(), path, 7); err != nil {
			t.Fatal(err)
		}
		r := got.Load()
		if r.URL.Path != "/v1/"+path || r.URL.RawQuery != "version=7" {
			t.Errorf("%s arrived as %s?%s", path, r.URL.Path, r.URL.RawQuery)
		}
		h := r.Header
		if h.Get("X-Vault-Token") != "hvs.granted" || h.Get("X-Vault-Namespace") != "team-a" || h.Get("X-Vault-Request") != "true" ||
			h.Get("Accept-Encoding") != "" {
			t.Errorf("headers: %v", h)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var visited atomic.Bool
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { visited.Store(true) })
	server := serve(t, answering(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	_, err := openOn(t, configFor(server.URL)).Read(t.Context(), "secret/data/app", 0)
	wantErr(t, err, vault.ErrUnreachable)
	if visited.Load() || !strings.Contains(remedy(err), "redirect") {
		t.Errorf("visited %v, remedy %q", visited.Load(), remedy(err))
	}
}

func TestAnswersAreBounded(t *testing.T) {
	for name, header := range map[string]bool{"with its length": true, "chunked": false} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, answering(func(w http.ResponseWriter, _ *http.Request) {
				if !header {
					w.(http.Flusher).Flush()
				}
				secretAnswer(w, strings.Repeat("x", 5<<20))
			}))
			c := openOn(t, configFor(server.URL))
			_, err := c.Read(t.Context(), "secret/data/app", 0)
			wantErr(t, err, vault.ErrTooLarge)
			if err := c.Admit("secret/data/app"); err != nil {
				t.Errorf("a large secret is no outage: %v", err)
			}
		})
	}
	server := serve(t, answering(func(w http.ResponseWriter, _ *http.Request) { secretAnswer(w, strings.Repeat("x", 3<<20)) }))
	if _, err := openOn(t, configFor(server.URL)).Read(t.Context(), "secret/data/app", 0); err != nil {
		t.Errorf("3 MiB: %v", err)
	}
}

func TestBodyThatBreaksOffIsUnreachable(t *testing.T) {
	server := serve(t, answering(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `{"data":{}}`)
	}))
	_, err := openOn(t, configFor(server.URL)).Read(t.Context(), "secret/data/app", 0)
	wantErr(t, err, vault.ErrUnreachable)
}

func TestVaultVariablesOfTheEnvironmentHaveNoEffect(t *testing.T) {
	var token atomic.Value
	server := serve(t, answering(func(w http.ResponseWriter, r *http.Request) {
		token.Store(fmt.Sprint(r.Header))
		secretAnswer(w, "v")
	}))
	for name, value := range map[string]string{
		"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_AGENT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "leaked-token",
		"VAULT_NAMESPACE": "leaked-namespace", "VAULT_SKIP_VERIFY": "true",
		"VAULT_WRAP_TTL": "60s", "VAULT_HEADERS": `{"X-Leaked":"yes"}`, "VAULT_PROXY_ADDR": "http://127.0.0.1:1",
		"VAULT_HTTP_PROXY": "http://127.0.0.1:1", "VAULT_RATE_LIMIT": "1", "VAULT_MAX_RETRIES": "9",
	} {
		t.Setenv(name, value)
	}
	if _, err := openOn(t, configFor(server.URL)).Read(t.Context(), "secret/data/app", 0); err != nil {
		t.Fatal(err)
	}
	if text := strings.ToLower(token.Load().(string)); strings.Contains(text, "leaked") || strings.Contains(text, "wrap") {
		t.Errorf("the environment leaked: %s", text)
	}
}

func TestNetworkErrorsSayWhatToChange(t *testing.T) {
	plain := serve(t, answering(nil))
	secure := httptest.NewTLSServer(answering(nil))
	secure.Config.ErrorLog = quiet()
	t.Cleanup(secure.Close)
	closed := serve(t, nil)
	closed.Close()
	for name, test := range map[string]struct{ address, want string }{
		"refused":           {closed.URL, "nothing listens"},
		"unknown host":      {"http://no-such-host.invalid:8200", "does not resolve"},
		"unknown authority": {secure.URL, "tls.ca_file"},
		"TLS to plain":      {strings.Replace(plain.URL, "http:", "https:", 1), "http://"},
		"plain to TLS":      {strings.Replace(secure.URL, "https:", "http:", 1), "https://"},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := TestConfig(t.Context(), configFor(test.address), nil)
			if err != nil {
				t.Fatal(err)
			}
			if check := report.Checks[0]; check.Status != CheckFailed || !strings.Contains(check.Remedy, test.want) {
				t.Errorf("reach: %+v", check)
			}
			for _, check := range report.Checks[1:] {
				if check.Status != CheckSkipped {
					t.Errorf("%s was tried", check.Name)
				}
			}
		})
	}
}

func TestTLSWithOwnCAAndClientCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(answering(func(w http.ResponseWriter, r *http.Request) {
		secretAnswer(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.Config.ErrorLog = quiet()
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	cfg := configFor(server.URL)
	cfg.TLS = vault.TLS{CAPEM: ca, ServerName: "example.com"}
	if _, err := openOn(t, cfg).Read(t.Context(), "secret/data/app", 0); err == nil {
		t.Error("read without a client certificate")
	}
	cfg.TLS.ClientCertFile, cfg.TLS.ClientKeyFile = writeCertificate(t)
	secret, err := openOn(t, cfg).Read(t.Context(), "secret/data/app", 0)
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := secret.Value("key"); v.Text.Reveal() != "sidecar" {
		t.Errorf("the server saw another certificate")
	}
	cfg.TLS.ServerName = "other.example"
	_, err = openOn(t, cfg).Read(t.Context(), "secret/data/app", 0)
	wantErr(t, err, vault.ErrUnreachable)
	if !strings.Contains(remedy(err), "tls.server_name") {
		t.Errorf("remedy: %s", remedy(err))
	}
}

func writeCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	template.Subject.CommonName = "sidecar"
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writePEM(t, certFile, "CERTIFICATE", cert)
	writePEM(t, keyFile, "PRIVATE KEY", der)
	return certFile, keyFile
}

func writePEM(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestConnectionsAreKeptForManyParallelReads(t *testing.T) {
	var conns, reads atomic.Int32
	server := httptest.NewUnstartedServer(answering(func(w http.ResponseWriter, _ *http.Request) {
		reads.Add(1)
		secretAnswer(w, "v")
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	c := openOn(t, configFor(server.URL))
	done := make(chan error)
	for range 100 {
		go func() {
			var err error
			for range 5 {
				if _, e := c.Read(t.Context(), "secret/data/app", 0); e != nil && err == nil {
					err = fmt.Errorf("%w %v", e, vault.DebugAttrs(e))
				}
			}
			done <- err
		}()
	}
	for range 100 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if reads.Load() != 500 || conns.Load() > 2*maxConcurrentReads {
		t.Errorf("%d reads over %d connections", reads.Load(), conns.Load())
	}
}

func TestMistakesInTheConfig(t *testing.T) {
	good := configFor("https://vault:8200")
	for name, change := range map[string]func(*Config){
		"address":         func(c *Config) { c.Address = "" },
		"scheme":          func(c *Config) { c.Address = "vault:8200" },
		"https://":        func(c *Config) { c.Address = "unix:///x" },
		"user":            func(c *Config) { c.Address = "https://me:hunter2@vault" },
		"role_id":         func(c *Config) { c.RoleID = login.Credential{} },
		"timeout":         func(c *Config) { c.Timeout = -1 },
		"ca_file":         func(c *Config) { c.TLS.CAFile = "/nowhere/ca.pem" },
		"PEM":             func(c *Config) { c.TLS.CAPEM = "no certificate" },
		"client_key_file": func(c *Config) { c.TLS.ClientCertFile = "x" },
	} {
		cfg := good
		change(&cfg)
		_, err := Open(cfg)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name != "scheme" && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the error does not name it: %v", name, err)
		}
	}
}

func TestPrintingASecretOrConnectionShowsNoValue(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		c := w.open(cfg)
		secret, err := c.Read(t.Context(), "secret/data/app", 0)
		if err != nil {
			t.Fatal(err)
		}
		value, _ := secret.Value("key")
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q"} {
			for _, thing := range []any{secret, struct{ hidden *vault.Secret }{secret}, value, c, cfg, &cfg, cfg.SecretID} {
				text := fmt.Sprintf(verb, thing)
				if strings.Contains(text, "the-value") || strings.Contains(text, cfg.SecretID.Value.Reveal()) {
					t.Errorf("%s prints %s", verb, text)
				}
			}
		}
	})
}
