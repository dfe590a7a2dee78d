package e2e_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// The faults of a cluster of three real Vaults behind a layer 4 load balancer, one at a time, under
// load.

// clusterSetup is a setup whose prod leads through a balancer to a cluster.
type clusterSetup struct {
	*loadSetup
	cluster *vaulttest.Cluster
}

func newClusterSetup(t *testing.T, healthy func(string) bool) *clusterSetup {
	t.Helper()
	s := newSandbox(t)
	c := &clusterSetup{loadSetup: &loadSetup{sandbox: s}, cluster: vaulttest.RaftCluster(t, 3)}
	c.vault = c.cluster.Nodes[0]
	var addresses []string
	for _, node := range c.cluster.Nodes {
		addresses = append(addresses, node.Address)
	}
	b := s.newBalancer("127.0.0.1:0", addresses...)
	b.check(healthy)
	c.setUp("http://"+b.address, c.askAnyNode, c.cluster, loadOptions{timeout: 3 * time.Second})
	return c
}

// askAnyNode is the direct client: it reads a secret at any node.
func (c *clusterSetup) askAnyNode(ctx context.Context) error {
	var failures error
	for _, node := range c.cluster.In() {
		err := direct(node, node.Address, loadPaths[0])(ctx)
		if err == nil {
			return nil
		}
		failures = errors.Join(failures, err)
	}
	return failures
}

// isUp is a balancer's health check: a node may have connections when it leads, or follows a
// leader.
func isUp(backend string) bool {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + backend + "/v1/sys/health?standbyok=true")
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode == http.StatusOK
}

func TestAClusterLosesOneNodeAtATime(t *testing.T) {
	t.Parallel()
	for name, healthy := range map[string]func(string) bool{
		"behind a balancer that checks nothing":    nil,
		"behind a balancer that checks the health": isUp,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClusterSetup(t, healthy)
			c.begin()
			c.load.meets("prod VAULT", "prod CACHE")
			// Elections take their time, and a busy machine may cause one. Denials and missing
			// secrets stay wrong.
			c.load.expect(expectation{outage: []failure{unreachable, sealed,
				{codes.Unavailable, "LOGIN_PENDING"}}})
			c.lose("the leader is killed", c.cluster.Leader(t), (*vaulttest.Vault).Kill,
				(*vaulttest.Vault).Restart)
			c.lose("the leader is sealed", c.cluster.Leader(t), (*vaulttest.Vault).Seal,
				(*vaulttest.Vault).Unseal)
			c.lose("the leader is frozen", c.cluster.Leader(t), (*vaulttest.Vault).Freeze, c.thaw)
			c.lose("a follower is frozen", c.follower(), (*vaulttest.Vault).Freeze, c.thaw)
			c.load.requireSome("prod VAULT", "prod CACHE", "prod STALE", "calm VAULT")
		})
	}
}

// lose takes one node away, and gives it back. The cluster has to be used again in time after both.
func (c *clusterSetup) lose(what string, node *vaulttest.Vault, loss,
	back func(*vaulttest.Vault, testing.TB)) {
	c.t.Helper()
	c.cluster.TakeOut(node)
	loss(node, c.t)
	c.cluster.Leader(c.t)
	c.t.Log(what + ":")
	c.load.requireHealed()
	c.load.meets("prod VAULT")
	back(node, c.t)
	c.cluster.PutBack(node)
	c.t.Log("it is back:")
	c.load.requireHealed()
	c.load.meets("prod VAULT")
}

// thaw lets a frozen node go on. A node that led answers with what it knew for a moment, until it
// learns that others have gone on without it.
func (c *clusterSetup) thaw(node *vaulttest.Vault, t testing.TB) {
	t.Helper()
	c.prod.mayLag(func() {
		node.Thaw(t)
		eventually(c.t, "the node that was frozen follows another one", node.Follows)
	})
}

// follower returns a node that does not lead.
func (c *clusterSetup) follower() *vaulttest.Vault {
	c.t.Helper()
	leader := c.cluster.Leader(c.t)
	for _, node := range c.cluster.Nodes {
		if node != leader {
			return node
		}
	}
	c.t.Fatal("all nodes lead")
	return nil
}
