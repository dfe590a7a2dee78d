package vault

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// ErrAddressNotAllowed is wrapped by the error of Open and TestConfig when Config.AllowedHosts does
// not cover the address.
var ErrAddressNotAllowed = errors.New("the address is not among those that may be connected to")

// destinations are the hosts that a client may connect to. A host listed by name may resolve to
// anything. Any other host is judged by the address that it resolves to at connection time, so that
// a name cannot change between check and use.
type destinations struct {
	hosts    []string // lower case
	networks []netip.Prefix
}

// newDestinations parses names, addresses and networks in CIDR notation.
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

// guardDialer makes the dialer refuse every address that is not allowed.
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
