package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
	"github.com/secret-sidecar/secret-sidecar/internal/harden"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// serve is the other side of the benchmark: this binary, started again as a server. It reports
// ready on its standard output.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	echoing := flags.String("echo", "", "serve the echo on this socket")
	hosting := flags.String("hosted", "", "serve the sidecar's server package on this socket")
	stats := flags.String("stats", "",
		"serve statistics and profiles of this process on this socket")
	contention := flags.Bool("contention", false, "profile mutexes and blocking, which costs time")
	latency := flags.Duration("vault", 0, "serve a Vault whose reads take so long")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *contention {
		runtime.SetMutexProfileFraction(10)
		runtime.SetBlockProfileRate(10_000)
	}
	if *stats != "" {
		if err := serveStats(ctx, *stats); err != nil {
			return err
		}
	}
	switch {
	case *echoing != "":
		return serveEcho(ctx, *echoing)
	case *hosting != "":
		return serveHosted(ctx, *hosting)
	}
	return serveVault(ctx, *latency)
}

// ready says that the server answers, and how.
func ready(with any) error { return json.NewEncoder(os.Stdout).Encode(with) }

func listenUnix(ctx context.Context, socket string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "unix", socket)
}

// echo answers every Resolve at once with a message of the sidecar's size. That is the least that
// gRPC costs.
type echo struct {
	secretsidecarv1.UnimplementedSecretServiceServer
	usual string
}

// Resolve implements the API.
func (e echo) Resolve(_ context.Context,
	request *secretsidecarv1.ResolveRequest) (*secretsidecarv1.ResolveResponse, error) {
	now := time.Now()
	return &secretsidecarv1.ResolveResponse{
		Value: e.value(request.GetPath()), ValueType: secretsidecarv1.ValueType_VALUE_TYPE_STRING,
		Version:          1,
		VersionCreatedAt: timestamppb.New(now), FetchedAt: timestamppb.New(now),
		ExpiresAt: timestamppb.New(now.Add(time.Hour)),
		Source:    secretsidecarv1.Source_SOURCE_CACHE,
	}, nil
}

// values are the echo's by their size.
var values = map[int]string{}

// BatchResolve implements the API.
func (e echo) BatchResolve(ctx context.Context, request *secretsidecarv1.BatchResolveRequest) (*secretsidecarv1.BatchResolveResponse, error) {
	answer := &secretsidecarv1.BatchResolveResponse{}
	for _, one := range request.GetRequests() {
		secret, err := e.Resolve(ctx, one)
		if err != nil {
			return nil, err
		}
		answer.Results = append(answer.Results, &secretsidecarv1.BatchResolveResult{
			Outcome: &secretsidecarv1.BatchResolveResult_Secret{Secret: secret}})
	}
	return answer, nil
}

func (e echo) value(path string) string {
	if strings.HasPrefix(path, "secret/data/size-256-") {
		return e.usual
	}
	size, _, _ := parseName(strings.TrimSuffix(strings.TrimPrefix(path, mount), key))
	return values[size]
}

func serveEcho(ctx context.Context, socket string) error {
	for _, size := range valueSizes {
		values[size] = strings.Repeat("x", size)
	}
	listener, err := listenUnix(ctx, socket)
	if err != nil {
		return err
	}
	g := grpc.NewServer(grpc.MaxConcurrentStreams(burst))
	secretsidecarv1.RegisterSecretServiceServer(g, echo{usual: values[usualSize]})
	context.AfterFunc(ctx, g.Stop)
	if err := ready(struct{}{}); err != nil {
		return err
	}
	return g.Serve(listener)
}

// hostedSettings come on the standard input, not as arguments, because they hold a credential.
type hostedSettings struct {
	Vault    vaultReady
	MaxBytes int64
}

// serveHosted serves what the sidecar's binary serves, with statistics. It has two connections, few
// and many, to one Vault.
func serveHosted(ctx context.Context, socket string) error {
	harden.PaceGC(os.LookupEnv) // as the sidecar does
	var settings hostedSettings
	if err := json.NewDecoder(os.Stdin).Decode(&settings); err != nil {
		return err
	}
	s, err := server.New(server.Options{})
	if err != nil {
		return err
	}
	listener, err := unixsocket.Listen(unixsocket.Socket{Path: socket, Mode: 0o600})
	if err != nil {
		return err
	}
	connection := func(name string) server.Connection {
		v := settings.Vault
		return server.Connection{
			Name: name, Scope: server.ScopePlatform,
			Vault: conn.Settings{Endpoint: vault.Endpoint{Address: v.Address},
				Role: login.Role{RoleID: login.Credential{Value: redact.New(v.RoleID)},
					SecretID: login.Credential{Value: redact.New(v.SecretID)}}},
			Policy: cache.Policy{TTL: time.Hour, MaxStale: time.Hour, NegativeTTL: 10 * time.Second,
				RefreshAhead: 5 * time.Minute, MaxWaiting: burst},
		}
	}
	err = s.Apply(server.Settings{
		CacheBytes:  settings.MaxBytes,
		Connections: []server.Connection{connection("few"), connection("many")},
	})
	if err != nil {
		return err
	}
	if err := ready(struct{}{}); err != nil {
		return err
	}
	return s.Serve(ctx, listener)
}

// processStats are a server's statistics about itself.
type processStats struct {
	// since the start: allocations, and how often a goroutine was scheduled
	Mallocs, Switches uint64
	Heap              uint64 // bytes in use
	Goroutines        int
}

// serveStats serves statistics, with ?gc after a garbage collection, and Go's profiles.
func serveStats(ctx context.Context, socket string) error {
	listener, err := listenUnix(ctx, socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/stats", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("gc") {
			runtime.GC()
			runtime.GC()
		}
		_ = json.NewEncoder(w).Encode(readStats())
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() { _ = s.Serve(listener) }()
	return nil
}

func readStats() processStats {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	// A histogram counts how long goroutines waited before they ran; the runtime tracks one
	// goroutine in eight (gTrackingPeriod).
	const tracked = 8
	waits := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(waits)
	var switches uint64
	for _, n := range waits[0].Value.Float64Histogram().Counts {
		switches += n * tracked
	}
	return processStats{Mallocs: memory.Mallocs, Switches: switches, Heap: memory.HeapAlloc,
		Goroutines: runtime.NumGoroutine()}
}

// vaultReady is what a Vault prints when it is ready.
type vaultReady struct {
	Address, RoleID, SecretID, RootToken string
}

// benchPolicy allows the benchmark's AppRole what it needs.
const benchPolicy = `path "secret/*" { capabilities = ["read"] }`

// serveVault serves the development Vault. It makes the benchmark's secrets up on request, whatever
// the token, so that a million of them cost no memory.
func serveVault(ctx context.Context, latency time.Duration) error {
	dev := devvault.New(devvault.Options{})
	roleID, secretID, err := dev.SetupAppRole("bench", benchPolicy)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: &madeUp{behind: dev, latency: latency},
		ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := ready(vaultReady{"http://" + listener.Addr().String(), roleID, secretID,
		dev.RootToken()}); err != nil {
		return err
	}
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// madeUp answers for the benchmark's secrets, and leaves everything else to the Vault behind it.
type madeUp struct {
	behind  http.Handler
	latency time.Duration
	reads   atomic.Int64
}

const readsPath = "/bench/reads"

func (m *madeUp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == readsPath {
		fmt.Fprint(w, m.reads.Load())
		return
	}
	size, number, ok := parseName(strings.TrimPrefix(r.URL.Path, "/v1/"+mount))
	if !ok {
		m.behind.ServeHTTP(w, r)
		return
	}
	m.reads.Add(1)
	if m.latency > 0 { // as a network takes it
		timer := time.NewTimer(m.latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w,
		`{"request_id":"8b0cbd2b-9b61-4f2f-9d2c-0f2d3d2a4f9e","lease_id":"","renewable":false,"lease_duration":0,`+
			`"data":{"data":{"key":%q},"metadata":{"created_time":"2026-01-01T00:00:00.123456789Z","custom_metadata":null,`+
			`"deletion_time":"","destroyed":false,"version":1}},"wrap_info":null,"warnings":null,"auth":null}`, valueOf(size, number))
}
