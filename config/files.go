package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"strconv"
	"strings"

	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
	"github.com/secret-sidecar/secret-sidecar/internal/smallfile"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// CheckFiles opens the files that the connections name and reports those that cannot be used now:
// credentials that are unreadable or cannot be right, certificates and keys that are not PEM or do
// not belong together. First it reports a socket group that this machine does not know. It is
// separate from Load because files may be mounted after the start; the sidecar waits for them. Nil
// means no mistake.
func CheckFiles(cfg *Config) Mistakes {
	files := fileCheck{origins: cfg.origins}
	files.group(cfg.Socket.Group)
	files.fleet(cfg.Fleet)
	for i, c := range cfg.Connections {
		files.prefix = fmt.Sprintf("connections[%d].", i)
		files.credential("role_id_file", c.Vault.RoleID.File)
		files.credential("secret_id_file", c.Vault.SecretID.File)
		files.jwt("auth.token_file", c.Vault.JWT.File)
		files.authorities(c.Vault.TLS.CAFile)
		files.clientCertificate(c.Vault.TLS.ClientCertFile, c.Vault.TLS.ClientKeyFile)
	}
	return files.mistakes
}

type fileCheck struct {
	origins  origins
	prefix   string
	mistakes Mistakes
}

func (f *fileCheck) mistake(key, message string) {
	m, known := f.origins[f.prefix+key]
	if !known {
		m.Path = f.prefix + key
	}
	m.Message = message
	f.mistakes = append(f.mistakes, m)
}

// group is a name or a number; a number needs no name.
func (f *fileCheck) group(name string) {
	if _, err := strconv.ParseUint(name, 10, 31); name == "" || err == nil {
		return
	}
	if _, err := user.LookupGroup(name); err != nil {
		f.mistake("socket.group",
			"this group does not exist on this machine: name one that does, or its number")
	}
}

func (f *fileCheck) fleet(c fleet.Config) {
	f.prefix = "invalidation.redis."
	f.read("password_file", c.PasswordFile)
	content, ok := f.read("ca_file", c.CAFile)
	if ok && !x509.NewCertPool().AppendCertsFromPEM(content) {
		f.mistake("ca_file", "the file holds no certificate in PEM format"+insteadOfCertificate(content))
	}
}

func (f *fileCheck) credential(key, file string) {
	if _, err := (login.Credential{File: file}).Read(key); err != nil {
		f.mistake(key, "the file "+credentialProblem(err))
	}
}

func (f *fileCheck) jwt(key, file string) {
	if _, err := (login.Credential{File: file}).ReadJWT(key); err != nil {
		f.mistake(key, "the file "+credentialProblem(err))
	}
}

func (f *fileCheck) authorities(file string) {
	content, ok := f.read("tls.ca_file", file)
	if ok && !x509.NewCertPool().AppendCertsFromPEM(content) {
		f.mistake("tls.ca_file", "the file holds no certificate in PEM format"+
			insteadOfCertificate(content))
	}
}

func (f *fileCheck) clientCertificate(certFile, keyFile string) {
	cert, certOK := f.read("tls.client_cert_file", certFile)
	key, keyOK := f.read("tls.client_key_file", keyFile)
	if !certOK || !keyOK {
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err == nil {
		return
	}
	switch {
	case !holdsBlock(cert, "CERTIFICATE"):
		f.mistake("tls.client_cert_file",
			"the file holds no certificate in PEM format"+insteadOfCertificate(cert))
	case holdsBlock(key, "ENCRYPTED PRIVATE KEY") ||
		bytes.Contains(key, []byte("Proc-Type: 4,ENCRYPTED")):
		f.mistake("tls.client_key_file",
			"the key is encrypted, and the sidecar cannot ask for the passphrase: store it "+
				"without one")
	case !holdsBlock(key, "PRIVATE KEY"):
		f.mistake("tls.client_key_file",
			"the file holds no private key in PEM format: name the key of client_cert_file")
	default:
		f.mistake("tls.client_cert_file",
			"this file and client_key_file are not a certificate and its key: "+
				"name two files that were issued together, the sidecar's own certificate first in "+
				"its file")
	}
}

// insteadOfCertificate says what a file holds instead of a PEM certificate.
func insteadOfCertificate(content []byte) string {
	_, err := x509.ParseCertificate(content)
	switch {
	case err == nil:
		return ": it is in DER format, convert it with openssl x509 -inform der"
	case holdsBlock(content, "CERTIFICATE"):
		return ": the text between BEGIN CERTIFICATE and END CERTIFICATE is damaged, copy it " +
			"again"
	case holdsBlock(content, "PRIVATE KEY"):
		return ": it holds a private key, name the certificate"
	}
	return ": name a file that begins with -----BEGIN CERTIFICATE-----"
}

// holdsBlock reports whether a PEM block has a type with this ending: there are several kinds of
// private keys.
func holdsBlock(content []byte, kind string) bool {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, kind) {
			return true
		}
	}
	return false
}

// read returns false for no file too.
func (f *fileCheck) read(key, file string) ([]byte, bool) {
	if file == "" {
		return nil, false
	}
	content, err := smallfile.Read(file, vault.MaxCertificateBytes)
	if err != nil {
		f.mistake(key, "the file cannot be read: "+reason(err))
		return nil, false
	}
	return content, true
}

// reason is err without the file's name, where a credential may have been written by mistake.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}
