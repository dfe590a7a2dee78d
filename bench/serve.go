package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/vault/devvault"
)

// serve is the other side of the benchmark: this binary, started again as a server. It says on its standard output
// that it is ready.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	socket := flags.String("echo", "", "serve the echo on this socket")
	latency := flags.Duration("vault", -1, "serve a development Vault whose answers take so long")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *socket != "" {
		return serveEcho(ctx, *socket)
	}
	return serveVault(ctx, *latency)
}

// echo answers every Resolve with the same message, of the size that the sidecar's has: the least that gRPC costs.
type echo struct {
	secretsidecarv1.UnimplementedSecretServiceServer
}

// Resolve implements the API.
func (echo) Resolve(context.Context, *secretsidecarv1.ResolveRequest) (*secretsidecarv1.ResolveResponse, error) {
	now := time.Now()
	return &secretsidecarv1.ResolveResponse{
		Value: value, ValueType: secretsidecarv1.ValueType_VALUE_TYPE_STRING, Version: 1,
		VersionCreatedAt: timestamppb.New(now), FetchedAt: timestamppb.New(now), ExpiresAt: timestamppb.New(now),
		Source: secretsidecarv1.Source_SOURCE_CACHE,
	}, nil
}

func serveEcho(ctx context.Context, socket string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	secretsidecarv1.RegisterSecretServiceServer(server, echo{})
	context.AfterFunc(ctx, server.Stop)
	fmt.Println("{}")
	return server.Serve(listener)
}

// vaultReady is what a Vault prints once it is ready.
type vaultReady struct {
	Address, RoleID, SecretID, RootToken string
}

func serveVault(ctx context.Context, latency time.Duration) error {
	vault := devvault.New(devvault.Options{})
	roleID, secretID, err := vault.SetupAppRole("bench", `path "secret/*" { capabilities = ["read"] }`)
	if err != nil {
		return err
	}
	for i := range secrets {
		if err := vault.WriteSecret(secretName(i), map[string]any{"key": value}); err != nil {
			return err
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: delayed(vault, latency), ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	ready := vaultReady{"http://" + listener.Addr().String(), roleID, secretID, vault.RootToken()}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// delayed makes each answer take longer, as a network does.
func delayed(handler http.Handler, latency time.Duration) http.Handler {
	if latency <= 0 {
		return handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
			handler.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}
