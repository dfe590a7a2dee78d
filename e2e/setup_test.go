package e2e_test

import (
	"cmp"
	"crypto/rand"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// setup is a sidecar with one connection, "prod", which leads through a proxy to a Vault. The Vault
// holds one secret.
type setup struct {
	*sandbox
	*sidecar
	vault  *vaulttest.Vault
	proxy  *proxy
	login  *login
	secret string // the value of secret/data/app/key
}

// newSetup starts one whose login may read the mount "secret". The lines are more YAML for the
// connection.
func newSetup(t *testing.T, v *vaulttest.Vault, lines ...string) *setup {
	t.Helper()
	return newSetupOf(t, v, nil, readSecrets, lines...)
}

// newSetupOf is newSetup with the parameters of the AppRole and its policy.
func newSetupOf(t *testing.T, v *vaulttest.Vault, role map[string]any, policy string,
	lines ...string) *setup {
	t.Helper()
	s := newUnstartedSetup(t, v, role, policy)
	s.sidecar = s.start("--config", s.config(s.login.connection("prod", s.proxy.address, lines...)))
	return s
}

// newSetupWith is newSetup with more YAML at the end of the configuration.
func newSetupWith(t *testing.T, v *vaulttest.Vault, more string) *setup {
	t.Helper()
	s := newUnstartedSetup(t, v, nil, readSecrets)
	s.sidecar = s.start("--config", s.writeConfig(more))
	return s
}

// writeConfig writes the configuration, with more YAML at its end, and returns the file's path.
func (s *setup) writeConfig(more string) string {
	s.t.Helper()
	return s.write("config.yaml", s.configText(s.login.connection("prod", s.proxy.address))+more)
}

// newUnstartedSetup is newSetupOf without a sidecar.
func newUnstartedSetup(t *testing.T, v *vaulttest.Vault, role map[string]any,
	policy string) *setup {
	t.Helper()
	s := &setup{sandbox: newSandbox(t), vault: v}
	s.proxy, s.login, s.secret = s.newProxy(v), s.newLogin(v, role, policy), s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", s.secret)
	return s
}

// in is the same setup for a subtest, which is the one to fail then.
func (s *setup) in(t *testing.T) *setup {
	same := *s
	same.sandbox, same.sidecar = s.sandbox.in(t), s.sidecar.in(t)
	return &same
}

// loadSetup is a sidecar with two connections, under load. "prod" leads to a real Vault, through a
// network, and a test may break both. "calm" leads to another Vault with the same paths. Nothing is
// ever wrong with that one, and no fault of prod may disturb it.
type loadSetup struct {
	*sandbox
	vault   *vaulttest.Vault
	network *network
	proxy   *proxy // between network and Vault, when asked for
	login   *login
	sidecar *sidecar
	load    *load
	address string        // of prod
	timeout time.Duration // of prod
	without probe         // asks prod's Vault without the sidecar

	prod, calm     *history
	calmConnection string
	lines          []string
}

// loadOptions say how a test's setup differs from the usual one.
type loadOptions struct {
	role      map[string]any // parameters of the AppRole
	timeout   time.Duration  // of prod; noOutage when 0
	withProxy bool
}

// noOutage is the timeout wherever no time-out is tested. A Vault that waits for a processor on a
// busy machine is no outage.
const noOutage = time.Minute

// timeoutOf is the line of a connection that sets its timeout.
func timeoutOf(d time.Duration) string { return "timeout: " + d.String() }

// newLoadSetup sets everything up and starts nothing yet; begin does.
func newLoadSetup(t *testing.T, o loadOptions) *loadSetup {
	t.Helper()
	s := newSandbox(t)
	r := &loadSetup{sandbox: s, vault: vaulttest.Raft(t)}
	address := r.vault.Address
	if o.withProxy {
		r.proxy = s.newProxy(r.vault)
		address = r.proxy.address
	}
	r.network = s.newNetwork(address)
	r.setUp(r.network.address, direct(r.vault, r.network.address, loadPaths[0]), r.vault, o)
	return r
}

// setUp makes the logins and the histories. Prod leads to address; its secrets are written to v.
func (r *loadSetup) setUp(address string, without probe, v writable, o loadOptions) {
	r.t.Helper()
	r.address, r.without = address, without
	r.login = r.newLogin(r.vault, o.role, readSecrets)
	r.timeout = cmp.Or(o.timeout, noOutage)
	r.lines = []string{timeoutOf(r.timeout), loadCache}
	calm := vaulttest.Dev(r.t)
	r.calmConnection = r.defaultLogin(calm).connection("calm", calm.Address, timeoutOf(noOutage),
		loadCache)
	// One marker in every value is enough for the leak checker to find any of them.
	marker := r.keep("top-secret-" + rand.Text())
	r.prod, r.calm = newHistory("prod-"+marker, v), newHistory("calm-"+marker, calm)
	r.prod.readTakes = r.timeout + time.Second
	for _, history := range []*history{r.prod, r.calm} {
		for _, path := range loadPaths {
			r.must(history.write(path))
		}
	}
}

// config writes the setup's configuration.
func (r *loadSetup) config() string {
	return r.sandbox.config(r.login.connection("prod", r.address, r.lines...), r.calmConnection)
}

// begin starts the sidecar and the load.
func (r *loadSetup) begin() {
	r.t.Helper()
	r.sidecar = r.start("--config", r.config())
	r.beginLoad()
}

func (r *loadSetup) beginLoad() {
	r.t.Helper()
	r.load = newLoad(r.t, r.sidecar, r.target(),
		&target{connection: "calm", history: r.calm, isCalm: true})
}

// target is prod under load.
func (r *loadSetup) target() *target {
	return &target{connection: "prod", history: r.prod, direct: r.without,
		mayTimeOut: r.timeout < noOutage}
}
