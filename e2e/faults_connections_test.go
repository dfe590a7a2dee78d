package e2e_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// Connections that are open and lead nowhere, while a new one would lead to a healthy Vault.

// heldConnections is how many connections the sidecar has when they die, unless one carries all
// requests.
const heldConnections = 8

// transports are the ways in which a sidecar speaks to a Vault.
var transports = []struct {
	name  string
	start func(*httptest.Server)
}{
	{"plain HTTP", (*httptest.Server).Start},
	{"TLS with HTTP/2", func(server *httptest.Server) {
		server.EnableHTTP2 = true
		server.StartTLS()
	}},
	{"TLS with HTTP/1.1 alone", (*httptest.Server).StartTLS},
}

// balancedSetup is a sidecar whose open connections lead through a balancer to a proxy before a
// Vault.
type balancedSetup struct {
	*sandbox
	vault    *vaulttest.Vault
	proxy    *proxy // where the open connections lead
	balancer *balancer
	sidecar  *sidecar
}

// newBalancedSetup builds one and opens the connections.
func newBalancedSetup(t *testing.T, start func(*httptest.Server), lines ...string) *balancedSetup {
	t.Helper()
	s := newSandbox(t)
	d := &balancedSetup{sandbox: s, vault: vaulttest.Dev(t)}
	d.proxy = s.openProxy(d.vault, start)
	d.balancer = s.newBalancer("127.0.0.1:0", d.proxy.address)
	scheme := "http://"
	if certificate := d.proxy.server.Certificate(); certificate != nil {
		scheme = "https://"
		lines = append(lines, "tls: {ca_file: "+s.write("ca.pem", pemOf(certificate.Raw))+"}")
	}
	d.sidecar = s.start("--config",
		s.config(s.defaultLogin(d.vault).connection("prod", scheme+d.balancer.address, lines...)))
	d.warm()
	return d
}

func pemOf(certificate []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
}

// warm writes secrets and reads all of them at once, so that each read opens a connection. On a
// slow machine the time-out may come before all reads are under way; then it tries again.
func (d *balancedSetup) warm() {
	d.t.Helper()
	for i := range heldConnections {
		d.writeSecret(d.vault, held(i), "key", d.newSecret())
	}
	eventually(d.t, "all reads are under way at the same time", func() bool {
		before, release := d.proxy.count("secret/data/held-"), d.proxy.hold()
		var reads sync.WaitGroup
		var failed atomic.Int32
		for i := range heldConnections {
			reads.Go(func() {
				if fresh(d.sidecar, "", held(i)+"/key")(d.t.Context()) != nil {
					failed.Add(1)
				}
			})
		}
		eventually(d.t, "all reads are under way or have failed", func() bool {
			return failed.Load() > 0 || d.proxy.count("secret/data/held-") == before+heldConnections
		})
		d.proxy.open()
		release()
		reads.Wait()
		return failed.Load() == 0
	})
}

func held(i int) string { return fmt.Sprintf("secret/data/held-%d", i) }

// requireHealed counts, from a fault on, the reads that fail of a worker who is in no hurry, until
// workers who ask all the time get what they want.
func (d *balancedSetup) requireHealed(without probe) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	var patient sync.WaitGroup
	var answered, refused int
	patient.Go(func() {
		everyTick(ctx, askWhileHealing, func() {
			inTime, done := context.WithTimeout(ctx, healsWithin)
			defer done()
			err := fresh(d.sidecar, "", held(heldConnections-1)+"/key")(inTime)
			switch {
			case err == nil:
				answered++
			case ctx.Err() == nil:
				refused++
			}
		})
	})
	requireHealed(d.t, without, fresh(d.sidecar, "", held(0)+"/key"),
		fresh(d.sidecar, "", held(1)+"/key"))
	cancel()
	patient.Wait()
	d.t.Logf("a worker who waits for up to 10s was answered %d times meanwhile and refused %d times",
		answered, refused)
}

func TestConnectionsThatWentSilentAreLeft(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			t.Parallel()
			d := newBalancedSetup(t, transport.start, "timeout: 2s")
			d.balancer.silence()
			d.requireHealed(direct(d.vault, d.proxy.address, held(0)))
		})
	}
}

// A time-out of 10 s, which is the default, must not make it longer than the bound.
func TestConnectionsThatWentSilentAreLeftBeforeALongTimeout(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			t.Parallel()
			d := newBalancedSetup(t, transport.start)
			d.balancer.silence()
			d.requireHealed(direct(d.vault, d.proxy.address, held(0)))
		})
	}
}

// proxyTo is what another Vault answers.
func (s *sandbox) proxyTo(v *vaulttest.Vault) http.HandlerFunc {
	s.t.Helper()
	target, err := url.Parse(v.Address)
	s.must(err)
	return httputil.NewSingleHostReverseProxy(target).ServeHTTP
}

// vaultSays is an answer in the form of Vault's.
func vaultSays(status int, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"errors":[%q]}`, message)
	}
}

// hang answers nothing until the client has gone. A server notices that only once it has read the
// body.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// badNodes are nodes of a cluster that accept connections and serve nothing.
var badNodes = []struct {
	name   string
	answer func(s *sandbox) http.HandlerFunc
}{
	{"is sealed", func(s *sandbox) http.HandlerFunc {
		sealed := vaulttest.RealPrivate(s.t)
		sealed.Seal(s.t)
		return s.proxyTo(sealed)
	}},
	{"is a standby that knows no leader", func(*sandbox) http.HandlerFunc {
		return vaultSays(http.StatusInternalServerError,
			"local node not active but active cluster node not found")
	}},
	{"is a standby that redirects to a leader who is gone", func(*sandbox) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1"+r.URL.Path, http.StatusTemporaryRedirect)
		}
	}},
	{"answers 500 to everything", func(*sandbox) http.HandlerFunc {
		return vaultSays(http.StatusInternalServerError, "internal error")
	}},
	{"answers everything with a page that says 503", func(*sandbox) http.HandlerFunc {
		return text(http.StatusServiceUnavailable, "no healthy upstream")
	}},
	{"hangs", func(*sandbox) http.HandlerFunc { return hang }},
}

func TestABalancersNodeThatNoLongerServesIsLeft(t *testing.T) {
	t.Parallel()
	for _, bad := range badNodes {
		t.Run("it "+bad.name, func(t *testing.T) {
			t.Parallel()
			for _, transport := range transports[:2] {
				t.Run(transport.name, func(t *testing.T) {
					answer := bad.answer(newSandbox(t))
					d := newBalancedSetup(t, transport.start, "timeout: 2s")
					other := d.openProxy(d.vault, transport.start)
					d.proxy.answerAll(answer)
					d.balancer.route(other.address)
					d.requireHealed(direct(d.vault, other.address, held(0)))
				})
			}
		})
	}
}

// As above, while every second of the new connections leads to the bad node too: nobody checks the
// nodes' health.
func TestABalancersNodeThatStaysBadIsLeftForAnother(t *testing.T) {
	t.Parallel()
	for _, bad := range badNodes {
		t.Run("it "+bad.name, func(t *testing.T) {
			t.Parallel()
			answer := bad.answer(newSandbox(t))
			d := newBalancedSetup(t, (*httptest.Server).Start, "timeout: 2s")
			other := d.newProxy(d.vault)
			d.proxy.answerAll(answer)
			d.balancer.route(d.proxy.address, other.address)
			d.requireHealed(direct(d.vault, other.address, held(0)))
		})
	}
}

// startWithHosts is start with a /etc/hosts of the sidecar's own, in a mount namespace.
func (s *sandbox) startWithHosts(hosts string, args ...string) *sidecar {
	s.t.Helper()
	const inNamespace = `mount --bind "$0" /etc/hosts && exec "$@"`
	unshare := func(command ...string) *exec.Cmd {
		return exec.Command("unshare",
			append([]string{"--mount", "--propagation", "private", "sh", "-c", inNamespace, hosts},
				command...)...)
	}
	if said, err := unshare("true").CombinedOutput(); err != nil {
		s.t.Skipf("a /etc/hosts of the sidecar's own needs unshare and the right to mount "+
			"(root): %v\n%s", err, said)
	}
	running := s.serve(unshare(append([]string{binary, "serve", "--log-level", "debug"},
		args...)...),
		nil)
	running.awaitHealth("")
	return running
}

// moved is a sidecar whose Vault has a name, and two addresses with the same port to move between.
func newMoved(t *testing.T) (d *balancedSetup, move func()) {
	t.Helper()
	s := newSandbox(t)
	d = &balancedSetup{sandbox: s, vault: vaulttest.Dev(t)}
	d.proxy = s.newProxy(d.vault)
	d.balancer = s.newBalancer("127.0.0.1:0", d.proxy.address)
	_, port, err := net.SplitHostPort(d.balancer.address)
	s.must(err)
	s.newBalancer("127.0.0.2:"+port, s.newProxy(d.vault).address)
	const name = "vault.test"
	hosts := s.write("hosts", "127.0.0.1 "+name+"\n127.0.0.1 localhost\n")
	d.sidecar = s.startWithHosts(hosts, "--config",
		s.config(s.defaultLogin(d.vault).connection("prod", "http://"+name+":"+port,
			"timeout: 2s")))
	d.warm()
	return d, func() {
		t.Helper()
		file, err := os.OpenFile(hosts, os.O_WRONLY, 0) // in place: the mount is of this file
		s.must(err)
		_, err = file.WriteString("127.0.0.2 ")
		s.must(err)
		s.must(file.Close())
	}
}

func TestANameThatMovedToAnotherAddressIsFollowed(t *testing.T) {
	t.Parallel()
	faults := map[string]func(d *balancedSetup){
		"nobody has the old address any more": func(d *balancedSetup) { d.balancer.vanish() },
		"the old address refuses connections": func(d *balancedSetup) { d.balancer.close() },
	}
	for _, bad := range badNodes[:4] {
		faults["what has the old address "+bad.name] = func(d *balancedSetup) {
			d.proxy.answerAll(bad.answer(d.sandbox))
		}
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, move := newMoved(t)
			fault(d)
			move()
			_, port, err := net.SplitHostPort(d.balancer.address)
			d.must(err)
			d.requireHealed(direct(d.vault, "http://127.0.0.2:"+port, held(0)))
		})
	}
}

// An orderly end of idle connections, as balancers do it all day, is no failure of the network and
// costs no read.
func TestABalancerThatClosesConnectionsFailsNoRead(t *testing.T) {
	t.Parallel()
	d := newBalancedSetup(t, (*httptest.Server).Start, timeoutOf(noOutage))
	const rounds = 10
	for range rounds {
		d.proxy.server.CloseClientConnections()
		for i := range 3 {
			if err := fresh(d.sidecar, "", held(i)+"/key")(t.Context()); err != nil {
				t.Errorf("after all connections were closed: %v", err)
			}
		}
	}
	d.requireHealed(nil)
	if connections := d.balancer.count(); connections < rounds {
		t.Errorf("%d connections in %d rounds: nothing was closed", connections, rounds)
	}
}
