package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// growth is how costs change as one number grows.
type growth struct {
	Title   string
	X       string   // what grows
	Columns []string // what is measured, with its unit
	Points  []point
	Chart   []int // the columns that its chart shows
	LogY    bool
}

type point struct {
	X      float64
	Values []float64 // by column
}

// growthCallers is how many callers growth is measured with.
const growthCallers = 16

// filled is a server with this many cached secrets in the connection many.
type filled struct {
	size    int
	server  *process
	clients []secretsidecarv1.SecretServiceClient
	heap    float64 // bytes for each secret
	subject subject
}

// startFilled starts a server and caches this many secrets in it.
func (s *stage) startFilled(ctx context.Context, size int) (*filled, error) {
	const maxBytes = 2 << 30
	server, clients, err := s.startHosted(ctx, maxBytes)
	if err != nil {
		return nil, err
	}
	if err := warmUp(ctx, clients); err != nil {
		return nil, err
	}
	empty, err := server.stats(ctx, true)
	if err != nil {
		return nil, err
	}
	all := requests("many", usualSize, 0, size)
	if err := fill(ctx, clients, all); err != nil {
		return nil, err
	}
	full, err := server.stats(ctx, true)
	return &filled{
		size: size, server: server, clients: clients,
		heap:    (float64(full.Heap) - float64(empty.Heap)) / float64(size),
		subject: subject{strconv.Itoa(size), 1, server, resolve(clients, all)},
	}, err
}

// warmUp opens the connections to Vault that a fill would open, so that they do not count as the
// cost of a secret.
func warmUp(ctx context.Context, clients []secretsidecarv1.SecretServiceClient) error {
	if err := fill(ctx, clients, requests("many", usualSize, 0, 16*maxBatch)); err != nil {
		return err
	}
	_, err := clients[0].Invalidate(ctx, &secretsidecarv1.InvalidateRequest{Connection: "many"})
	return err
}

// growSecrets measures hits and memory from 100 to 1,000,000 cached secrets, and what dropping them
// all costs others.
func growSecrets(ctx context.Context, s *stage, p plan, r *results) error {
	var all []*filled
	var subjects []subject
	for _, size := range []int{100, 1_000, 10_000, 100_000, 1_000_000} {
		say("growth: %d cached secrets", size)
		one, err := s.startFilled(ctx, size)
		if err != nil {
			return err
		}
		all, subjects = append(all, one), append(subjects, one.subject)
	}
	single, err := interleave(ctx, subjects, 1, p.rounds, p.each/2)
	if err != nil {
		return err
	}
	many, err := interleave(ctx, subjects, growthCallers, p.rounds, p.each/2)
	if err != nil {
		return err
	}
	hits := growth{
		Title: "Cached secrets of 256 bytes", X: "cached secrets",
		Columns: []string{"p50 of a hit, 1 caller, µs", "p50, 16 callers, µs",
			"p99, 16 callers, µs", "hits a second, 16 callers", "resident, MB",
			"heap for each secret, B"},
		Chart: []int{0, 1, 2},
	}
	for i, one := range all {
		hits.Points = append(hits.Points, point{float64(one.size), []float64{
			micros(median(p50, single[i])), micros(median(p50, many[i])),
			micros(median(p99, many[i])), median(perSecond, many[i]),
			one.server.resident(), one.heap,
		}})
	}
	last := len(all) - 1
	r.Growth = append(r.Growth, hits)
	r.Targets = append(r.Targets,
		target{Measure: "p50 of a hit among 1,000,000 secrets / among 100, 16 callers",
			Value: hits.Points[last].Values[1] / hits.Points[0].Values[1], AtMost: 1.2},
		target{Measure: "heap for each cached secret of 256 B, with 100,000 of them",
			Value: all[last-1].heap, Unit: "B", AtMost: 700},
		target{Measure: "the same with 1,000,000 of them", Value: all[last].heap, Unit: "B",
			AtMost: 700})
	return growDrops(ctx, all, r)
}

// growDrops measures Invalidate of whole connections, and ends the servers.
func growDrops(ctx context.Context, all []*filled, r *results) error {
	drops := growth{
		Title: "Invalidate, while 4 callers hit another connection", X: "secrets invalidated",
		Columns: []string{"Invalidate took, ms", "p99 of hits meanwhile, µs", "longest hit, ms",
			"p99 before, µs", "longest before, ms"}, Chart: []int{1, 3},
	}
	single := requests("many", usualSize, 0, 1)
	values, err := measureDrop(ctx, all[0].clients, 1, &secretsidecarv1.InvalidateRequest{
		Connection: "many", Path: single[0].GetPath(),
	})
	if err != nil {
		return err
	}
	drops.Points = append(drops.Points, point{1, values})
	if err := fill(ctx, all[0].clients, single); err != nil {
		return err
	}
	for _, one := range all {
		values, err := measureDrop(ctx, one.clients, one.size,
			&secretsidecarv1.InvalidateRequest{Connection: "many"})
		if err != nil {
			return err
		}
		drops.Points = append(drops.Points, point{float64(one.size), values})
		one.server.stop()
	}
	r.Growth = append(r.Growth, drops)
	return nil
}

// measureDrop invalidates size secrets of the connection many under hits on the connection few.
func measureDrop(ctx context.Context, clients []secretsidecarv1.SecretServiceClient, size int,
	request *secretsidecarv1.InvalidateRequest) ([]float64, error) {
	hits := requests("few", usualSize, 0, usual)
	if err := fill(ctx, clients, hits); err != nil {
		return nil, err
	}
	const callers, window = 4, 500 * time.Millisecond
	before, during := make([][]time.Duration, callers), make([][]time.Duration, callers)
	if err := drive(ctx, resolve(clients, hits), callers, until(window), before); err != nil {
		return nil, err
	}
	driven := make(chan error, 1)
	go func() { driven <- drive(ctx, resolve(clients, hits), callers, until(window), during) }()
	began := time.Now()
	dropped, err := clients[0].Invalidate(ctx, request)
	took := time.Since(began)
	if err := <-driven; err != nil {
		return nil, err
	}
	if err != nil || dropped.GetEntries() != uint32(size) {
		return nil, fmt.Errorf("invalidated %d of %d: %w", dropped.GetEntries(), size, err)
	}
	b, d := sorted(before), sorted(during)
	return []float64{millis(took), micros(d[len(d)*99/100]), millis(d[len(d)-1]),
		micros(b[len(b)*99/100]), millis(b[len(b)-1])}, nil
}

// growConnections measures the product with 1 to 500 connections.
func growConnections(ctx context.Context, s *stage, p plan, r *results) error {
	counts := []int{1, 10, 100, 500}
	g := growth{Title: "Connections to Vault", X: "connections",
		Columns: []string{"start to all logged in, ms", "p50 of a hit, 16 callers, µs",
			"hits a second", "resident, MB"}, Chart: []int{3}}
	var subjects []subject
	var started []float64
	for _, count := range counts {
		say("growth: %d connections", count)
		var config strings.Builder
		config.WriteString("connections:\n")
		for i := range count {
			config.WriteString(connection(fmt.Sprintf("c%d", i), s.quick))
		}
		began := time.Now()
		server, clients, err := s.startSidecar(ctx, config.String())
		if err != nil {
			return err
		}
		started = append(started, millis(time.Since(began)))
		var all []*secretsidecarv1.ResolveRequest
		for i := range usual {
			all = append(all, requests(fmt.Sprintf("c%d", i%count), usualSize, i, 1)...)
		}
		subjects = append(subjects, subject{strconv.Itoa(count), 1, server, resolve(clients, all)})
	}
	measured, err := interleave(ctx, subjects, growthCallers, p.rounds, p.each/2)
	if err != nil {
		return err
	}
	for i, count := range counts {
		g.Points = append(g.Points, point{float64(count), []float64{
			started[i], micros(median(p50, measured[i])), median(perSecond, measured[i]),
			median(resident, measured[i])}})
		subjects[i].process.stop()
	}
	r.Growth = append(r.Growth, g)
	return nil
}

// growClients measures the product with 1 to 1,000 client connections, all of them open and used in
// turn by 64 callers.
func growClients(ctx context.Context, s *stage, p plan, r *results) error {
	counts := []int{1, 10, 100, 1_000}
	g := growth{Title: "Client connections", X: "client connections",
		Columns: []string{"p50 of a hit, 64 callers, µs", "p99, µs", "hits a second",
			"resident, MB"}, Chart: []int{0, 1}}
	hits := requests("quick", usualSize, 0, usual)
	var subjects []subject
	for _, count := range counts {
		say("growth: %d client connections", count)
		server, _, err := s.startSidecar(ctx, "connections:\n"+connection("quick", s.quick))
		if err != nil {
			return err
		}
		clients, err := s.dial(s.lastSocket(), count)
		if err != nil {
			return err
		}
		if err := drive(ctx, resolve(clients, hits), count, times(1), nil); err != nil {
			return err
		}
		call := resolve(clients, hits)
		subjects = append(subjects,
			subject{strconv.Itoa(count), 1, server,
				func(ctx context.Context, caller, turn int) error {
					return call(ctx, caller+turn*64, turn)
				}})
	}
	measured, err := interleave(ctx, subjects, 64, p.rounds, p.each/2)
	if err != nil {
		return err
	}
	for i, count := range counts {
		g.Points = append(g.Points, point{float64(count), []float64{
			micros(median(p50, measured[i])), micros(median(p99, measured[i])),
			median(perSecond, measured[i]), median(resident, measured[i])}})
		subjects[i].process.stop()
	}
	r.Growth = append(r.Growth, g)
	return nil
}

// valueSizes are those of growValues.
var valueSizes = []int{16, 256, 4 << 10, 64 << 10, 1 << 20}

// growValues measures values of 16 bytes to 1 MiB against the echo.
func growValues(ctx context.Context, s *stage, p plan, r *results) error {
	g := growth{Title: "Size of the value", X: "bytes",
		Columns: []string{"p50 of a hit, 16 callers, µs", "p50 of the echo, µs",
			"hits / echo, throughput", "MB a second"}, Chart: []int{0, 1}, LogY: true}
	for _, size := range valueSizes {
		say("growth: values of %d bytes", size)
		all := requests("quick", size, 0, 10)
		// batches end at 4 MiB
		if err := drive(ctx, resolve(s.clients, all), 1, times(len(all)), nil); err != nil {
			return err
		}
		measured, err := interleave(ctx, []subject{
			{"hit", 1, s.sidecar, resolve(s.clients, all)},
			{"echo", 1, s.bare, echoed(s.echo, all)},
		}, growthCallers, p.rounds, p.each/2)
		if err != nil {
			return err
		}
		hit, echo := measured[0], measured[1]
		g.Points = append(g.Points, point{float64(size), []float64{
			micros(median(p50, hit)), micros(median(p50, echo)),
			median(perSecond, hit) / median(perSecond, echo),
			median(perSecond, hit) * float64(size) / 1e6}})
	}
	r.Growth = append(r.Growth, g)
	return nil
}

// growBatches measures batches of 1 to 256 secrets.
func growBatches(ctx context.Context, s *stage, p plan, r *results) error {
	say("growth: batches")
	sizes := []int{1, 2, 5, 10, 32, 100, 256}
	hits := requests("quick", usualSize, 0, 10*maxBatch)
	if err := fill(ctx, s.clients, hits); err != nil {
		return err
	}
	var subjects []subject
	for _, size := range sizes {
		subjects = append(subjects,
			subject{strconv.Itoa(size), size, s.sidecar,
				resolveBatches(s.clients, hits[:len(hits)/size*size], size)})
	}
	measured, err := interleave(ctx, subjects, growthCallers, p.rounds, p.each/2)
	if err != nil {
		return err
	}
	g := growth{Title: "Size of a batch", X: "secrets in a batch",
		Columns: []string{"secrets a second, 16 callers", "p50 of a batch, µs", "p99, µs"},
		Chart:   []int{0}, LogY: true}
	for i, size := range sizes {
		g.Points = append(g.Points, point{float64(size), []float64{
			median(perSecond, measured[i]), micros(median(p50, measured[i])),
			micros(median(p99, measured[i]))}})
	}
	r.Growth = append(r.Growth, g)
	return nil
}
