package vault

import (
	"errors"
	"net"
	"net/url"
	"testing"
)

func TestWhichAddressesMayBeConnectedTo(t *testing.T) {
	for _, test := range []struct {
		name             string
		allowed          string
		address          string
		resolved         string // what the host resolves to; the host itself when empty
		refused, atFirst bool   // refused before the host is resolved
	}{
		{name: "a listed name", allowed: "vault.example", address: "https://VAULT.example.:8200", resolved: "10.0.0.1"},
		{name: "another name", allowed: "vault.example", address: "https://evil.example", refused: true, atFirst: true},
		{name: "a name below a listed one", allowed: "vault.example", address: "https://x.vault.example", refused: true, atFirst: true},
		{name: "a listed address", allowed: "10.0.0.7", address: "http://10.0.0.7:8200"},
		{name: "an address in a network", allowed: "10.0.0.0/8", address: "http://10.9.9.9"},
		{name: "an address outside", allowed: "10.0.0.0/8", address: "http://169.254.169.254", refused: true, atFirst: true},
		{name: "an address of IPv6", allowed: "fd00::/8", address: "http://[fd00::1]:8200"},
		{name: "IPv4 dressed as IPv6", allowed: "10.0.0.0/8", address: "http://[::ffff:169.254.169.254]", refused: true, atFirst: true},
		{name: "IPv4 in a network, dressed as IPv6", allowed: "10.0.0.0/8", address: "http://[::ffff:10.0.0.1]"},
		{name: "a name that resolves inside", allowed: "10.0.0.0/8", address: "http://any.example", resolved: "10.1.1.1"},
		{name: "a name that resolves outside", allowed: "10.0.0.0/8", address: "http://any.example", resolved: "127.0.0.1", refused: true},
		{name: "an address in decimal", allowed: "10.0.0.0/8", address: "http://2130706433", resolved: "127.0.0.1", refused: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			address, err := url.Parse(test.address)
			if err != nil {
				t.Fatal(err)
			}
			var dialer net.Dialer
			err = newAllowlist([]string{test.allowed}).guardDialer(&dialer, address)
			if refused := errors.Is(err, ErrAddressNotAllowed); refused != test.atFirst {
				t.Fatalf("at first: %v", err)
			}
			if dialer.Control == nil {
				return
			}
			if test.resolved == "" {
				test.resolved = address.Hostname()
			}
			err = dialer.Control("tcp", net.JoinHostPort(test.resolved, "8200"), nil)
			if refused := errors.Is(err, ErrAddressNotAllowed); refused != test.refused {
				t.Errorf("once resolved: %v", err)
			}
		})
	}
}
