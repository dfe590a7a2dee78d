package devvault

import (
	"crypto/x509"
	"encoding/hex"
	"strings"
)

var errNoMatch = badRequest("failed to match all constraints for this login certificate")

// verifyCertificate logs in by the cert method: a role, the one that is named or any, has to trust
// the CA.
func verifyCertificate(r *request, b *identityBackend) (*identityRole, map[string]string, error) {
	switch {
	case r.tls == nil:
		return nil, nil, badRequest("tls connection required")
	case len(r.tls.PeerCertificates) == 0:
		return nil, nil, badRequest("client certificate must be supplied")
	}
	shown := r.tls.PeerCertificates[0]
	name := r.body.text("name")
	for _, role := range b.roles {
		if name != "" && role.name != name {
			continue
		}
		err := role.trusts(shown)
		switch invalid, isInvalid := err.(x509.CertificateInvalidError); { //nolint:errorlint // Verify wraps nothing
		case err == nil && role.allows("allowed_common_names", shown.Subject.CommonName):
			return role, describeCertificate(role, shown), nil
		case isInvalid:
			return nil, nil, internalError("failed to verify client's certificate: " + invalid.Error())
		}
	}
	return nil, nil, errNoMatch
}

func (role *identityRole) trusts(shown *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(role.bound.text("certificate")))
	_, err := shown.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

func describeCertificate(role *identityRole, shown *x509.Certificate) map[string]string {
	return map[string]string{
		"cert_name": role.name, "common_name": shown.Subject.CommonName, "serial_number": shown.SerialNumber.String(),
		"subject_key_id": inHex(shown.SubjectKeyId), "authority_key_id": inHex(shown.AuthorityKeyId),
	}
}

func inHex(bytes []byte) string {
	var parts []string
	for _, b := range bytes {
		parts = append(parts, hex.EncodeToString([]byte{b}))
	}
	return strings.Join(parts, ":")
}
