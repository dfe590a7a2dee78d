package e2e_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// gRPC's own limits disconnect a client at the third ping in which it has no request under way.
func TestAClientThatPingsEveryTenSecondsStaysConnected(t *testing.T) {
	t.Parallel()
	s, v := newSandbox(t), vaulttest.Dev(t)
	s.start("--config", s.config(s.defaultLogin(v).connection("prod", v.Address)))
	channel, err := grpc.NewClient("unix://"+s.socket(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second,
			PermitWithoutStream: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = channel.Close() }()
	channel.Connect()
	for state := channel.GetState(); state != connectivity.Ready; state = channel.GetState() {
		channel.WaitForStateChange(t.Context(), state)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second)
	defer cancel()
	if channel.WaitForStateChange(ctx, connectivity.Ready) {
		t.Errorf("the sidecar disconnected it: %v", channel.GetState())
	}
}
