package vault

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// ErrAddressNotAllowed is wrapped by Open's and TestConfig's error when Config.AllowedHosts does
// not cover the address.
var ErrAddressNotAllowed = errors.New("the address is not among those that may be connected to")

// destinations are where a client may connect to. A host that is listed by name may resolve to
// anything. Any other one is judged by what it resolves to, at the moment of connecting: so a name
// cannot change its mind in between.
type destinations struct {
	hosts    []string // lower case
	networks []netip.Prefix
}

// newDestinations takes names, addresses and networks in CIDR notation.
func newDestinations(allowed []string) destinations {
	var d destinations
	for _, text := range allowed {
		if network, err := netip.ParsePrefix(text); err == nil {
			d.networks = append(d.networks, network.Masked())
			continue
		}
		if address, err := netip.ParseAddr(text); err == nil {
			address = address.Unmap()
			d.networks = append(d.networks, netip.PrefixFrom(address, address.BitLen()))
			continue
		}
		d.hosts = append(d.hosts, canonicalHost(text))
	}
	return d
}

// guardDialer makes the dialer refuse what is not allowed for an address of Vault's.
func (d destinations) guardDialer(dialer *net.Dialer, address *url.URL) error {
	host := canonicalHost(address.Hostname())
	for _, allowed := range d.hosts {
		if host == allowed {
			return nil
		}
	}
	if literal, err := netip.ParseAddr(host); err == nil && !d.covers(literal) ||
		len(d.networks) == 0 {
		return ErrAddressNotAllowed
	}
	dialer.Control = func(_, resolved string, _ syscall.RawConn) error {
		if where, err := netip.ParseAddrPort(resolved); err == nil && d.covers(where.Addr()) {
			return nil
		}
		return ErrAddressNotAllowed
	}
	return nil
}

func (d destinations) covers(address netip.Addr) bool {
	address = address.Unmap().WithZone("")
	for _, network := range d.networks {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

func canonicalHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }
