package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

const (
	callers   = 16
	callEvery = 10 * time.Millisecond
	// insistEvery is how many calls lie between two that take no stale copy.
	insistEvery = 20
)

// load is workers who ask for secrets, evenly, until its end.
type load struct {
	channel *grpc.ClientConn
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func startLoad(ctx context.Context, socket string) (*load, error) {
	channel, err := dial(socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &load{channel: channel, cancel: cancel}
	client := secretsidecarv1.NewSecretServiceClient(channel)
	for range callers {
		l.running.Go(func() { ask(ctx, client) })
	}
	return l, nil
}

// ask asks for one secret after the other. What it is answered, the metrics say.
func ask(ctx context.Context, client secretsidecarv1.SecretServiceClient) {
	tick := time.NewTicker(callEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		request := &secretsidecarv1.ResolveRequest{Path: "secret/data/" +
			secretName(rand.IntN(secrets)) + "/key"}
		if n%insistEvery == 0 {
			request.MaxStale = durationpb.New(0)
		}
		_, _ = client.Resolve(ctx, request)
	}
}

func (l *load) end() {
	l.cancel()
	l.running.Wait()
	_ = l.channel.Close()
}
