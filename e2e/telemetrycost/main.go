// Command telemetrycost prints what a cached Resolve allocates, client and socket included, and how
// many goroutines the process has. It is built twice: with the telemetry of the product, and, with
// the build tag unlinked, without.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	// the exporters link it, and then a client sends a header more
	_ "google.golang.org/grpc/encoding/gzip"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

const (
	warmUp = 2_000
	calls  = 20_000
)

func main() {
	if err := measure(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // it is a command
	}
}

func measure(ctx context.Context) error {
	directory, err := os.MkdirTemp("", "ss")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(directory) }()
	connection, err := startVault(ctx)
	if err != nil {
		return err
	}
	options, err := telemetryOptions(ctx)
	if err != nil {
		return err
	}
	sidecar, err := server.New(options)
	if err != nil {
		return err
	}
	if err := sidecar.Apply(
		server.Settings{Connections: []server.Connection{connection}}); err != nil {
		return err
	}
	socket := filepath.Join(directory, "s.sock")
	listener, err := unixsocket.Listen(unixsocket.Socket{Path: socket})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	served := make(chan struct{})
	go func() { defer close(served); _ = sidecar.Serve(ctx, listener) }()
	defer func() { stop(); <-served }()
	return resolveMany(ctx, socket)
}

// startVault serves a development Vault for the life of the process.
func startVault(ctx context.Context) (server.Connection, error) {
	dev := devvault.New(devvault.Options{})
	roleID, secretID, err := dev.SetupAppRole("worker",
		`path "secret/*" { capabilities = ["read"] }`)
	if err != nil {
		return server.Connection{}, err
	}
	if err := dev.WriteSecret("app", map[string]any{"key": "value"}); err != nil {
		return server.Connection{}, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return server.Connection{}, err
	}
	go func() { _ = (&http.Server{Handler: dev, ReadHeaderTimeout: time.Minute}).Serve(listener) }()
	return server.Connection{
		Name: "prod", Scope: server.ScopePlatform, Policy: cache.Policy{TTL: time.Hour},
		Vault: conn.Settings{
			Endpoint: vault.Endpoint{Address: "http://" + listener.Addr().String()},
			Role: login.Role{RoleID: login.Credential{Value: redact.New(roleID)},
				SecretID: login.Credential{Value: redact.New(secretID)}},
		},
	}, nil
}

func resolveMany(ctx context.Context, socket string) error {
	channel, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = channel.Close() }()
	client := secretsidecarv1.NewSecretServiceClient(channel)
	request := &secretsidecarv1.ResolveRequest{Path: "secret/data/app/key"}
	var before, after runtime.MemStats
	for i := range warmUp + calls {
		if i == warmUp {
			runtime.GC()
			runtime.ReadMemStats(&before)
		}
		if _, err := client.Resolve(ctx, request, grpc.WaitForReady(true)); err != nil {
			return err
		}
	}
	runtime.ReadMemStats(&after)
	_, err = fmt.Fprintf(os.Stdout, "%.2f %d\n", float64(after.Mallocs-before.Mallocs)/calls,
		runtime.NumGoroutine())
	return err
}
