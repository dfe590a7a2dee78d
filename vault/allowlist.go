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

// allowlist names the hosts that a client may connect to. A host listed by name may resolve to
// anything. Any other host is judged by the address that it resolves to at connection time, so that
// a name cannot change between check and use.
type allowlist struct {
	hosts    []string // lower case
	networks []netip.Prefix
}

// newAllowlist parses names, addresses and networks in CIDR notation.
func newAllowlist(allowed []string) allowlist {
	var l allowlist
	for _, text := range allowed {
		if network, err := netip.ParsePrefix(text); err == nil {
			l.networks = append(l.networks, network.Masked())
			continue
		}
		if address, err := netip.ParseAddr(text); err == nil {
			address = address.Unmap()
			l.networks = append(l.networks, netip.PrefixFrom(address, address.BitLen()))
			continue
		}
		l.hosts = append(l.hosts, canonicalHost(text))
	}
	return l
}

// guardDialer makes the dialer refuse every address that is not allowed.
func (l allowlist) guardDialer(dialer *net.Dialer, address *url.URL) error {
	host := canonicalHost(address.Hostname())
	for _, allowed := range l.hosts {
		if host == allowed {
			return nil
		}
	}
	if literal, err := netip.ParseAddr(host); err == nil && !l.covers(literal) ||
		len(l.networks) == 0 {
		return ErrAddressNotAllowed
	}
	dialer.Control = func(_, resolved string, _ syscall.RawConn) error {
		if where, err := netip.ParseAddrPort(resolved); err == nil && l.covers(where.Addr()) {
			return nil
		}
		return ErrAddressNotAllowed
	}
	return nil
}

func (l allowlist) covers(address netip.Addr) bool {
	address = address.Unmap().WithZone("")
	for _, network := range l.networks {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

func canonicalHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }
