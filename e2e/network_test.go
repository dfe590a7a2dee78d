package e2e_test

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// network is the network between a sidecar and its Vault: a TCP proxy with Toxiproxy's faults. Only
// the test's goroutine changes it.
type network struct {
	sandbox *sandbox
	server  *toxiproxy.ApiServer
	proxy   *toxiproxy.Proxy
	// address is the base URL of the Vault behind it.
	address string
}

// newNetwork builds a network before the Vault at an address. The test's end closes it.
func (s *sandbox) newNetwork(vault string) *network {
	s.t.Helper()
	n := &network{sandbox: s, server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil),
		zerolog.Nop())}
	address, err := vaulttest.FreeAddress() // it is given up and taken again
	s.must(err)
	n.proxy = toxiproxy.NewProxy(n.server, "vault", address, strings.TrimPrefix(vault, "http://"))
	n.connect()
	n.address = "http://" + n.proxy.Listen
	s.t.Cleanup(n.proxy.Stop)
	return n
}

// disconnect closes the connections, and refuses new ones.
func (n *network) disconnect() { n.proxy.Stop() }

// connect undoes disconnect.
func (n *network) connect() {
	n.sandbox.t.Helper()
	if err := n.proxy.Start(); err != nil {
		n.sandbox.t.Fatalf("start the network: %v", err)
	}
}

// toxic is a fault of Toxiproxy's: its type and attributes, see
// https://github.com/Shopify/toxiproxy#toxics.
type toxic struct {
	kind       string
	attributes map[string]any
	upstream   bool // of what the sidecar sends; else of what Vault sends
}

func latencyOf(d time.Duration) toxic {
	return toxic{kind: "latency", attributes: map[string]any{"latency": d.Milliseconds()}}
}

var (
	// blackHole swallows what is sent and breaks no connection, like a firewall that drops packets.
	blackHole = toxic{kind: "timeout", attributes: map[string]any{"timeout": 0}, upstream: true}
	// resets answers with a TCP reset as soon as something is sent.
	resets = toxic{kind: "reset_peer", attributes: map[string]any{"timeout": 0}}
	// truncated ends every connection in the middle of the first answer.
	truncated = toxic{kind: "limit_data", attributes: map[string]any{"bytes": 200}}
	// slowClose keeps connections that one side has closed open for a second.
	slowClose = toxic{kind: "slow_close", attributes: map[string]any{"delay": 1000}}
	// narrow lets 2 kB pass in a second.
	narrow = toxic{kind: "bandwidth", attributes: map[string]any{"rate": 2}}
)

// poison adds a fault.
func (n *network) poison(t toxic) {
	n.sandbox.t.Helper()
	stream := "downstream"
	if t.upstream {
		stream = "upstream"
	}
	text, err := json.Marshal(map[string]any{"type": t.kind, "stream": stream,
		"attributes": t.attributes})
	if err != nil {
		n.sandbox.t.Fatal(err)
	}
	if _, err := n.proxy.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
		n.sandbox.t.Fatalf("make the network bad (%s): %v", text, err)
	}
}

// heal removes every fault.
func (n *network) heal() {
	n.sandbox.t.Helper()
	n.proxy.Toxics.ResetToxics(n.sandbox.t.Context())
}
