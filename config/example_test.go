package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
)

func TestTheExampleFileIsValid(t *testing.T) {
	text, err := os.ReadFile("../deploy/config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, strings.ReplaceAll(string(text), "/etc/secret-sidecar/", ""))
	directory := filepath.Dir(path)
	certificate, key := selfSigned(t)
	for name, content := range map[string]string{
		"prod-secret-id": "secret\n", "vault-ca.pem": certificate, "redis-ca.pem": certificate, "redis-password": "p", "client.pem": certificate, "client-key.pem": key,
	} {
		if err := writeFile(filepath.Join(directory, name), content); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Check(path,
		env(map[string]string{"PAYMENTS_ROLE_ID": "role", "PAYMENTS_WRAPPED_SECRET_ID": "token"}))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Connections) != 2 || len(cfg.Callers) != 2 ||
		!cfg.Connections[1].Vault.SecretIDWrapped {
		t.Errorf("config %+v", cfg)
	}
}

func TestTheExampleAndTheGuideNameEveryKey(t *testing.T) {
	for _, file := range []string{"../deploy/config.example.yaml", "../docs/configuration.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{
			"caller_limits", "in_flight", "per_second", "test_connection", "allow", "scan", "enabled",
			"audit", "file", "format", "hash_paths", "reflection", "hardening", "lock_memory",
			"landlock", "log", "level", "traces", "paths",
			"socket", "path", "mode", "group", "callers", "uid", "gid", "projects", "methods",
			"cache", "max_bytes", "defaults",
			"timeout", "ttl", "max_stale", "negative_ttl", "refresh_ahead", "connections", "name",
			"aliases", "scope", "project_ids",
			"address", "namespace", "auth_mount", "role_id", "role_id_env", "secret_id_file",
			"secret_id_env", "secret_id_wrapped", "bind_secret_id",
			"tls", "ca_file", "server_name", "client_cert_file", "client_key_file", "required",
			"max_waiting", "invalidation", "redis", "url", "password_file", "stream",
		} {
			if !strings.Contains(string(text), key) {
				t.Errorf("%s lacks %s", file, key)
			}
		}
	}
}

// selfSigned returns a certificate and its key in PEM format.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}
