//go:build !race

package e2e_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

var soakFor = flag.Duration("soak", 0, "how long TestSoak runs; 0 skips it")

// TestSoak runs a sidecar for long under load, rotation and faults, and watches what the process
// itself says of its goroutines, descriptors and memory: none may grow. `make soak` runs it for
// half an hour.
func TestSoak(t *testing.T) {
	if *soakFor == 0 {
		t.Skip("runs for long: make soak")
	}
	r := newLoadSetup(t, loadOptions{timeout: 2 * time.Second,
		role: map[string]any{"token_ttl": "4s", "token_max_ttl": "12s"}})
	metrics := &output{}
	command := exec.Command(binary, "serve", "--log-level", "warn", "--config", r.config())
	command.Env = r.environ("OTEL_METRICS_EXPORTER=console", "OTEL_METRIC_EXPORT_INTERVAL=500")
	log := &output{}
	command.Stdout, command.Stderr = metrics, log
	r.sidecar = r.launch(command, log)
	r.sidecar.awaitHealth("")
	r.beginLoad()

	end := time.Now().Add(*soakFor)
	var usages []usage
	for round := 0; time.Now().Before(end); round++ {
		for _, fault := range soakFaults {
			fault(r)
			r.load.heal()
			r.load.during(500 * time.Millisecond)
		}
		usages = append(usages, r.sidecar.usage(metrics))
		t.Logf("after round %d: %v", round+1, usages[round])
	}
	requireNoGrowth(t, usages)
	r.load.requireSome("prod VAULT", "prod CACHE", "prod STALE", "prod VAULT_UNREACHABLE",
		"prod VAULT_SEALED", "calm VAULT")
}

// soakFaults is one round of what happens to a sidecar in a year.
var soakFaults = []func(r *loadSetup){
	func(r *loadSetup) { // the secret_id is rotated and the old one destroyed
		next := r.login.newSecretID()
		r.write(r.login.role, next)
		r.must(r.sidecar.renewLogin())
		r.login.destroySecretID(r.login.secretID)
		r.login.secretID = next
	},
	func(r *loadSetup) { r.vault.RevokeRoleTokens(r.t, r.login.role) },
	func(r *loadSetup) {
		r.outage(sealed)
		r.vault.Seal(r.t)
		r.load.during(time.Second)
		r.vault.Unseal(r.t)
	},
	func(r *loadSetup) {
		r.outage(unreachable)
		r.network.poison(blackHole)
		r.load.during(2 * time.Second)
		r.network.heal()
	},
	func(r *loadSetup) {
		r.outage(unreachable)
		r.network.disconnect()
		r.load.during(time.Second)
		r.network.connect()
	},
	func(r *loadSetup) { // another connection comes and goes
		more := strings.Replace(r.calmConnection, "name: calm", "name: more", 1)
		r.write("config.yaml",
			r.configText(r.login.connection("prod", r.network.address, r.lines...),
				r.calmConnection, more))
		r.awaitConnections(3)
		r.config()
		r.awaitConnections(2)
	},
	func(r *loadSetup) { // workers come, ask and go
		for range 50 {
			channel := r.dial()
			_, err := secretsidecarv1.NewSecretServiceClient(channel).ListConnections(r.t.Context(),
				&secretsidecarv1.ListConnectionsRequest{}, grpc.WaitForReady(true))
			r.must(err)
			r.must(channel.Close())
		}
	},
}

func (r *loadSetup) outage(reasons ...failure) {
	r.load.expect(expectation{outage: append(reasons, unreachable)})
}

// awaitConnections waits until the sidecar has so many connections.
func (r *loadSetup) awaitConnections(count int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("there are %d connections", count), func() bool {
		list, err := r.sidecar.ListConnections(r.t.Context(),
			&secretsidecarv1.ListConnectionsRequest{})
		return err == nil && len(list.GetConnections()) == count
	})
}

// usage is what a process takes.
type usage struct {
	goroutines, descriptors, resident int64
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %.1f MB", u.goroutines, u.descriptors,
		float64(u.resident)/(1<<20))
}

// usage asks the process for its goroutines, through the metrics that it exports, and the kernel
// for the rest.
func (r *sidecar) usage(metrics *output) usage {
	r.sandbox.t.Helper()
	var count int64
	seen := strings.Count(metrics.String(), goroutineMetric)
	eventually(r.sandbox.t, "the process exports its goroutines", func() bool {
		text := metrics.String()
		count = lastGoroutineCount(r.sandbox.t, text)
		return strings.Count(text, goroutineMetric) > seen && count > 0
	})
	return usage{goroutines: count, descriptors: int64(r.descriptors()),
		resident: r.memory("VmRSS")}
}

const goroutineMetric = `"go.goroutine.count"`

// lastGoroutineCount reads the newest complete export.
func lastGoroutineCount(t *testing.T, exports string) int64 {
	t.Helper()
	var count int64
	for decoder := json.NewDecoder(strings.NewReader(exports)); ; {
		var export struct {
			ScopeMetrics []struct {
				Metrics []struct {
					Name string
					Data struct{ DataPoints []struct{ Value json.Number } }
				}
			}
		}
		if decoder.Decode(&export) != nil {
			return count // the end, or the middle of the next export
		}
		for _, scope := range export.ScopeMetrics {
			for _, metric := range scope.Metrics {
				if metric.Name == strings.Trim(goroutineMetric, `"`) &&
					len(metric.Data.DataPoints) > 0 {
					count, _ = metric.Data.DataPoints[0].Value.Int64()
				}
			}
		}
	}
}

// requireNoGrowth compares the rounds at the end with those at the beginning. The first one warms
// up.
func requireNoGrowth(t *testing.T, usages []usage) {
	t.Helper()
	const fewest = 4
	if len(usages) < fewest {
		t.Fatalf("%d rounds are too few to see growth: soak for longer", len(usages))
	}
	usages = usages[1:]
	third := max(len(usages)/3, 1)
	early, late := usages[:third], usages[len(usages)-third:]
	for _, one := range []struct {
		what  string
		of    func(usage) int64
		slack int64
	}{
		// Connections that were left live on for up to a minute and a half, with two goroutines each.
		{"goroutines", func(u usage) int64 { return u.goroutines }, 30},
		{"descriptors", func(u usage) int64 { return u.descriptors }, 6},
		{"bytes of memory", func(u usage) int64 { return u.resident }, 8 << 20},
	} {
		before, after := median(early, one.of), median(late, one.of)
		if after > before+max(one.slack, before/20) {
			t.Errorf("%s have grown from %d to %d in %d rounds", one.what, before, after,
				len(usages))
		}
	}
}

func median(usages []usage, of func(usage) int64) int64 {
	var values []int64
	for _, one := range usages {
		values = append(values, of(one))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
