package e2e_test

import (
	"testing"
	"time"
)

// The faults of the network between sidecar and Vault, under load.

func TestTheNetworkToVaultIsBad(t *testing.T) {
	t.Parallel()
	outage := expectation{outage: []failure{unreachable}}
	served, refused := []string{"prod VAULT", "prod CACHE"}, []string{"prod STALE",
		"prod VAULT_UNREACHABLE"}
	for _, test := range []struct {
		name     string
		fault    toxic
		timeout  time.Duration
		expected expectation
		met      []string // answers that show that the fault was there
	}{
		{"answers that take 300 ms longer fail nothing", latencyOf(300 * time.Millisecond), noOutage,
			healthy, served},
		{"a black hole swallows what is sent and resets nothing", blackHole, 3 * time.Second, outage,
			refused},
		{"every connection is reset", resets, noOutage, outage, refused},
		{"every answer is truncated", truncated, noOutage, outage, refused},
		{"connections close slowly", slowClose, noOutage, healthy, served},
		{"2 kB pass in a second", narrow, noOutage, outage, served},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newLoadSetup(t, loadOptions{timeout: test.timeout})
			r.begin()
			r.load.meets(served...)
			r.load.expect(test.expected)
			r.network.poison(test.fault)
			r.load.meets(test.met...)
			r.network.heal()
			r.load.heal()
			r.load.meets(served...)
		})
	}
}

func TestTheNetworkToVaultFlapsEverySecond(t *testing.T) {
	t.Parallel()
	r := newLoadSetup(t, loadOptions{})
	r.begin()
	r.load.expect(expectation{outage: []failure{unreachable}})
	for range 8 {
		r.network.disconnect()
		r.load.during(500 * time.Millisecond)
		r.network.connect()
		r.load.during(500 * time.Millisecond)
	}
	r.load.heal()
	r.load.meets("prod VAULT")
	r.load.requireSome("prod STALE", "prod VAULT_UNREACHABLE")
}
