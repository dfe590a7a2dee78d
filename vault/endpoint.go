package vault

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// Endpoint identifies a Vault. It is comparable: when it differs, the Vault differs or looks
// different, so a token from before is of no use.
type Endpoint struct {
	// Address is http(s)://host[:port]: see ParseAddress. Required.
	Address string
	// Namespace is the Vault Enterprise namespace; empty is none.
	Namespace string
	// TLS is used for https addresses.
	TLS TLS
}

const wantAddress = "want http:// or https://, a host and perhaps a port, such as " +
	"https://vault.example:8200"

// ParseAddress parses http(s)://host[:port], with or without a trailing slash. It is the only
// grammar of addresses, so that every way to name a Vault accepts the same ones. Its errors say
// what is wrong and quote nothing: a credential may stand where an address belongs.
func ParseAddress(text string) (*url.URL, error) {
	address, err := url.Parse(text)
	if err != nil {
		address = &url.URL{}
	}
	if problem := addressProblem(text, address); problem != "" {
		return nil, errors.New("address: " + problem)
	}
	address.Path = ""
	return address, nil
}

// AddressProblem returns what is wrong with an address, or "". The text follows a setting's name.
func AddressProblem(text string) string {
	if _, err := ParseAddress(text); err != nil {
		return strings.TrimPrefix(err.Error(), "address: ")
	}
	return ""
}

func addressProblem(text string, address *url.URL) string {
	switch {
	case strings.ContainsFunc(text, unicode.IsControl):
		return "holds a line break or another control character: remove it"
	case strings.Contains(text, "${"), strings.Contains(text, "{{"):
		return wantAddress + "; variables are not replaced here"
	case text != "" && !strings.Contains(text, "://"):
		return wantAddress + "; put https:// in front of this one"
	case address.Opaque != "", address.Scheme != "http" && address.Scheme != "https":
		return wantAddress
	case address.User != nil:
		return "must not hold a user or a password: " + wantAddress
	case address.Path == "/v1" || strings.HasPrefix(address.Path, "/v1/"):
		return "must not hold a path: leave /v1 out, the sidecar adds it"
	case address.Path != "" && address.Path != "/":
		return "must not hold a path: " + wantAddress
	case strings.ContainsAny(text, "?#"):
		return `must not hold "?" or "#": ` + wantAddress
	case address.Hostname() == "" || strings.ContainsFunc(address.Host, unicode.IsSpace):
		return wantAddress
	}
	return portProblem(address)
}

func portProblem(address *url.URL) string {
	port := address.Port()
	if port == "" && !strings.HasSuffix(address.Host, ":") {
		return ""
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return "the port must be a number from 1 to 65535"
	}
	return ""
}
