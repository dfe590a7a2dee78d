package vaulttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// clusterPatience is the performance_multiplier of a cluster: with 1 a follower waits for its
// leader for 3 s before it wants to lead.
const clusterPatience = 1

// quick is the client for requests to a cluster of which a node may not answer.
var quick = &http.Client{Timeout: 3 * time.Second, Transport: client.Transport,
	CheckRedirect: client.CheckRedirect}

// Cluster is a raft cluster of real Vaults. Its methods are safe for concurrent use.
type Cluster struct {
	// Nodes are its members: each a Vault of Raft's kind at an address of its own. What one holds,
	// all hold.
	Nodes []*Vault

	mu  sync.RWMutex // held for reading by a request
	out []*Vault     // those that TakeOut was told of; guarded by mu
}

// RaftCluster starts a cluster of real Vaults. It ends with the test. It skips like Real.
func RaftCluster(t testing.TB, size int) *Cluster {
	t.Helper()
	binary := vaultBinary(t)
	c := &Cluster{}
	for i := range size {
		p, err := startUntilItWorks(func() (*process,
			error) {
			return c.tryNode(binary, fmt.Sprintf("node-%d", i))
		})
		if err != nil {
			t.Fatalf("start node %d of a cluster of real Vaults: %v", i, err)
		}
		t.Cleanup(p.stop)
		c.Nodes = append(c.Nodes, &Vault{Name: "real", Address: p.address, RootToken: p.rootToken,
			process: p})
	}
	if err := c.Nodes[0].process.waitUntil(c.allVote); err != nil {
		t.Fatalf("wait until all nodes have a vote: %v", err)
	}
	return c
}

// allVote reports whether every node has a vote: a new one has none at first, and cannot replace a
// leader.
func (c *Cluster) allVote() error {
	first := c.Nodes[0].process
	answer, err := call(first.address, first.rootToken, http.MethodGet,
		"sys/storage/raft/configuration", nil, nil)
	if err != nil {
		return err
	}
	if voters := strings.Count(answer.Text, `"voter":true`); voters < len(c.Nodes) {
		return fmt.Errorf("%d of %d nodes have a vote", voters, len(c.Nodes))
	}
	return nil
}

// trustAtOnce makes the cluster give new nodes a vote soon.
func (p *process) trustAtOnce() error {
	answer, err := call(p.address, p.rootToken, http.MethodPost,
		"sys/storage/raft/autopilot/configuration",
		map[string]any{"server_stabilization_time": "100ms"}, nil)
	if err == nil && answer.Status/100 != 2 {
		err = fmt.Errorf("configure autopilot: %d %s", answer.Status, answer.Text)
	}
	return err
}

// tryNode starts the first node, or one more.
func (c *Cluster) tryNode(binary, name string) (*process, error) {
	dir, err := os.MkdirTemp("", "vaulttest-")
	if err != nil {
		return nil, err
	}
	p := &process{binary: binary, dir: dir}
	if len(c.Nodes) == 0 {
		if err = p.setUpRaft(name, clusterPatience); err == nil {
			err = p.trustAtOnce()
		}
	} else {
		err = p.join(c.Nodes[0].process, name)
	}
	if err != nil {
		return nil, p.abandon(err)
	}
	return p, nil
}

// join makes an empty Vault a member of another one's cluster.
func (p *process) join(first *process, name string) error {
	p.rootToken, p.unsealKey = first.rootToken, first.unsealKey
	if err := p.startNode(name, clusterPatience); err != nil {
		return err
	}
	answer, err := call(p.address, "", http.MethodPost, "sys/storage/raft/join",
		map[string]any{"leader_api_addr": first.address}, nil)
	if err == nil && answer.Status != http.StatusOK {
		err = fmt.Errorf("join: %d %s", answer.Status, answer.Text)
	}
	return errors.Join(err, p.unseal(), p.waitUntil(p.answers))
}

// TakeOut makes Try leave a node alone, and waits until no request of Try's is under way: a node
// that is about to stop keeps none that it might carry out later.
func (c *Cluster) TakeOut(node *Vault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, node)
}

// PutBack undoes TakeOut.
func (c *Cluster) PutBack(node *Vault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = slices.DeleteFunc(c.out, func(one *Vault) bool { return one == node })
}

// In returns the nodes that are not taken out.
func (c *Cluster) In() []*Vault {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.inNow()
}

func (c *Cluster) inNow() []*Vault {
	return slices.DeleteFunc(slices.Clone(c.Nodes),
		func(one *Vault) bool { return slices.Contains(c.out, one) })
}

// Try is the Try of a node that is not taken out. It does not wait for long.
func (c *Cluster) Try(method, path string, body any) (Answer, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	in := c.inNow()
	node := in[rand.IntN(len(in))]
	return callBy(quick, node.Address, node.RootToken, method, path, body, nil)
}

// Leader waits until one of the nodes that are not taken out leads the others and serves, and
// returns it.
func (c *Cluster) Leader(t testing.TB) *Vault {
	t.Helper()
	var leader *Vault
	leads := func() error {
		for _, node := range c.In() {
			if node.Leads() {
				leader = node
				return nil
			}
		}
		return errors.New("no node leads")
	}
	if err := c.In()[0].process.waitUntil(leads); err != nil {
		t.Fatalf("wait for a leader: %v", err)
	}
	return leader
}

// Leads reports whether a node says that it leads. One that does not answer does not.
func (v *Vault) Leads() bool {
	// 200 is the answer of the active node alone.
	answer, err := callBy(quick, v.Address, "", http.MethodGet, "sys/health", nil, nil)
	return err == nil && answer.Status == http.StatusOK
}

// Follows reports whether a node says that it follows one that leads. One that does not answer does
// not.
func (v *Vault) Follows() bool {
	// 429 is the answer of a standby. Any other, an error's too, leaves it open who leads.
	answer, err := callBy(quick, v.Address, "", http.MethodGet, "sys/health", nil, nil)
	return err == nil && answer.Status == http.StatusTooManyRequests
}

// Freeze stops the process of a Vault of Raft's kind. The kernel goes on to take connections for
// it.
func (v *Vault) Freeze(t testing.TB) { v.signal(t, syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (v *Vault) Thaw(t testing.TB) { v.signal(t, syscall.SIGCONT) }

func (v *Vault) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	v.requireRaft(t)
	if err := v.process.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("send %v to Vault: %v", signal, err)
	}
}
