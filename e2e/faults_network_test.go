package e2e_test

import (
	"testing"
	"time"
)

// The faults of the network between sidecar and Vault, under load.

func TestTheNetworkToVaultIsBad(t *testing.T) {
	t.Parallel()
	outage := expectation{outage: []failure{unreachable}}
	for _, test := range []struct {
		name     string
		fault    toxic
		expected expectation
		met      []string // answers that show that the fault was there
	}{
		{"answers that take 300 ms longer fail nothing", latencyOf(300 * time.Millisecond), healthy, nil},
		{"a black hole swallows what is sent and resets nothing", blackHole, outage, []string{"prod STALE", "prod VAULT_UNREACHABLE"}},
		{"every connection is reset", resets, outage, []string{"prod STALE", "prod VAULT_UNREACHABLE"}},
		{"every answer is truncated", truncated, outage, []string{"prod STALE", "prod VAULT_UNREACHABLE"}},
		{"connections close slowly", slowClose, healthy, nil},
		{"2 kB pass in a second", narrow, outage, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newLoadSetup(t, loadOptions{})
			r.begin()
			r.load.during(time.Second)
			r.load.expect(test.expected)
			r.network.poison(test.fault)
			r.load.during(4 * time.Second)
			r.network.heal()
			r.load.heal()
			r.load.during(time.Second)
			r.load.requireSome(append(test.met, "prod VAULT", "prod CACHE")...)
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
	r.load.during(time.Second)
	r.load.requireSome("prod VAULT", "prod STALE", "prod VAULT_UNREACHABLE")
}
