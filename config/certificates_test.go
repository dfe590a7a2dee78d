package config_test

import (
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
)

func TestCheckSaysWhatIsWrongWithCertificates(t *testing.T) {
	certificate, key := selfSigned(t)
	_, otherKey := selfSigned(t)
	block, _ := pem.Decode([]byte(certificate))
	damaged := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("hush")}))
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY",
		Bytes: []byte("hush")}))
	const noCertificate = "the file holds no certificate in PEM format: "
	for name, test := range map[string]struct{ ca, cert, key, at, want string }{
		"all is well":                {ca: certificate, cert: certificate, key: key},
		"more than one CA":           {ca: certificate + certificate, cert: certificate + certificate, key: key},
		"a key as CA":                {key, certificate, key, "ca_file", noCertificate + "it holds a private key"},
		"a CA in DER":                {string(block.Bytes), certificate, key, "ca_file", noCertificate + "it is in DER format"},
		"a damaged CA":               {damaged, certificate, key, "ca_file", noCertificate + "the text between BEGIN CERTIFICATE"},
		"text as CA":                 {"hush", certificate, key, "ca_file", noCertificate + "name a file that begins with"},
		"the two in the wrong place": {certificate, key, certificate, "client_cert_file", noCertificate + "it holds a private key"},
		"another's key":              {certificate, certificate, otherKey, "client_cert_file", "this file and client_key_file are not a certificate and its key"},
		"a certificate as key":       {certificate, certificate, certificate, "client_key_file", "the file holds no private key"},
		"an encrypted key":           {certificate, certificate, encrypted, "client_key_file", "the key is encrypted"},
	} {
		path := write(t, with("tls: {ca_file: ca, client_cert_file: cert, client_key_file: key}"))
		for file, text := range map[string]string{"ca": test.ca, "cert": test.cert,
			"key": test.key} {
			if err := writeFile(filepath.Join(filepath.Dir(path), file), text); err != nil {
				t.Fatal(err)
			}
		}
		_, err := config.Check(path, noEnv)
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || strings.Contains(err.Error(), "\n") ||
			!strings.HasPrefix(err.Error(), path+":6:") || strings.Contains(err.Error(), "hush") ||
			!strings.Contains(err.Error(), "connections[0].tls."+test.at+": "+test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
