package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// The subjects that targets compare.
const (
	subjectEcho      = "echo: bare gRPC"
	subjectCached    = "cached Resolve"
	subjectMetrics   = "cached Resolve, metrics exported"
	subjectBatch     = "BatchResolve of 10"
	subjectProxy     = "Vault Proxy, real Vault"
	subjectProxyMade = "Vault Proxy, Vault 0 ms"
	subjectMiss      = "miss, Vault 0 ms"
	subjectDirect    = "vault/api, Vault 0 ms"
)

const usualBatch = 10

// loadLine is the result of one subject with one number of callers.
type loadLine struct {
	Subject string
	Callers int
	Rounds  []measurement
}

var errWrongValue = errors.New("a wrong value")

// resolve calls Resolve for one request after the other, and checks the values.
func resolve(clients []secretsidecarv1.SecretServiceClient,
	all []*secretsidecarv1.ResolveRequest) func(context.Context, int, int) error {
	return resolveAs(isRight, clients, all)
}

// echoed is resolve for the echo, which cannot know the right value.
func echoed(clients []secretsidecarv1.SecretServiceClient,
	all []*secretsidecarv1.ResolveRequest) func(context.Context, int, int) error {
	return resolveAs(func(*secretsidecarv1.ResolveRequest, string) bool {
		return true
	}, clients, all)
}

func resolveAs(right func(*secretsidecarv1.ResolveRequest, string) bool,
	clients []secretsidecarv1.SecretServiceClient,
	all []*secretsidecarv1.ResolveRequest,
) func(context.Context, int, int) error {
	return func(ctx context.Context, caller, turn int) error {
		request := all[(caller*7919+turn)%len(all)]
		answer, err := clients[caller%len(clients)].Resolve(ctx, request)
		if err == nil && !right(request, answer.GetValue()) {
			return errWrongValue
		}
		return err
	}
}

// resolveBatches calls BatchResolve for size requests at a time; the last batch takes the rest.
func resolveBatches(clients []secretsidecarv1.SecretServiceClient,
	all []*secretsidecarv1.ResolveRequest, size int) func(context.Context, int, int) error {
	var batches []*secretsidecarv1.BatchResolveRequest
	for batch := range slices.Chunk(all, size) {
		batches = append(batches, &secretsidecarv1.BatchResolveRequest{Requests: batch})
	}
	return func(ctx context.Context, caller, turn int) error {
		request := batches[(caller*7919+turn)%len(batches)]
		answer, err := clients[caller%len(clients)].BatchResolve(ctx, request)
		for i, result := range answer.GetResults() {
			if !isRight(request.GetRequests()[i], result.GetSecret().GetValue()) {
				return errors.Join(errWrongValue, fmt.Errorf("%v", result.GetError()))
			}
		}
		return err
	}
}

// fill caches these secrets.
func fill(ctx context.Context, clients []secretsidecarv1.SecretServiceClient,
	all []*secretsidecarv1.ResolveRequest) error {
	const callers = 16
	size := min(len(all), maxBatch)
	call := resolveBatches(clients, all, size)
	batches := (len(all) + size - 1) / size
	return drive(ctx, func(ctx context.Context, caller, turn int) error {
		if batch := turn*callers + caller; batch < batches {
			return call(ctx, 0, batch)
		}
		return nil
	}, callers, times(batches/callers+1), nil)
}

// maxBatch is the most requests of one BatchResolve.
const maxBatch = 256

func fresh(all []*secretsidecarv1.ResolveRequest) []*secretsidecarv1.ResolveRequest {
	for _, request := range all {
		request.MaxAge = durationpb.New(0)
	}
	return all
}

// measureLoad measures every subject with every number of callers.
func measureLoad(ctx context.Context, s *stage, p plan) ([]loadLine, error) {
	subjects, err := s.loadSubjects(ctx, p)
	if err != nil {
		return nil, err
	}
	var lines []loadLine
	for _, callers := range p.callers {
		chosen := subjects
		if p.quick {
			chosen = quickSubjects(subjects, callers)
		}
		say("load: %d callers", callers)
		all, err := interleave(ctx, chosen, callers, p.rounds, p.each)
		if err != nil {
			return nil, fmt.Errorf("with %d callers: %w", callers, err)
		}
		for i, one := range chosen {
			lines = append(lines, loadLine{one.name, callers, all[i]})
		}
	}
	return lines, nil
}

// quickSubjects are the subjects that a target compares at this number of callers.
func quickSubjects(all []subject, callers int) (chosen []subject) {
	wanted := map[string]bool{subjectEcho: true, subjectCached: true}
	if callers == 16 {
		wanted[subjectBatch], wanted[subjectProxy] = true, true
		wanted[subjectMiss], wanted[subjectDirect] = true, true
	} else {
		wanted[subjectMetrics] = true
	}
	for _, one := range all {
		if wanted[one.name] {
			chosen = append(chosen, one)
		}
	}
	return chosen
}

func (s *stage) loadSubjects(ctx context.Context, p plan) ([]subject, error) {
	if err := s.setUp(ctx); err != nil {
		return nil, err
	}
	exporting, exportingClients, err := s.startSidecar(ctx, s.quickAndSlow(),
		s.metricsVariables()...)
	if err != nil {
		return nil, err
	}
	missing, missingClients, err := s.startSidecar(ctx, s.quickAndSlow())
	if err != nil {
		return nil, err
	}
	direct, err := vaultClient(s.quick.Address, s.quick.RootToken)
	if err != nil {
		return nil, err
	}
	hits := requests("quick", usualSize, 0, usual)
	subjects := []subject{
		{subjectEcho, 1, s.bare, echoed(s.echo, hits)},
		{subjectCached, 1, s.sidecar, resolve(s.clients, hits)},
		{subjectMetrics, 1, exporting, resolve(exportingClients, hits)},
		{subjectBatch, usualBatch, s.sidecar, resolveBatches(s.clients, hits, usualBatch)},
		{subjectMiss, 1, missing, resolve(missingClients,
			fresh(requests("quick", usualSize, 0, usual)))},
		{"miss, Vault 5 ms", 1, missing,
			resolve(missingClients, fresh(requests("slow", usualSize, 0, usual)))},
		{subjectDirect, 1, nil, readDirect(direct)},
	}
	if p.vault == "" {
		say("there is no real Vault to compare with: make real-vault builds it")
		return subjects, nil
	}
	more, err := s.realVaultSubjects(ctx, p)
	return append(subjects, more...), err
}

// realVaultSubjects are those that need the real Vault's binary.
func (s *stage) realVaultSubjects(ctx context.Context, p plan) ([]subject, error) {
	proxyMade, clientMade, err := s.startProxy(ctx, p.vault, s.quick)
	if err != nil {
		return nil, fmt.Errorf("start Vault Proxy: %w", err)
	}
	v, err := s.startRealVault(ctx, p.vault)
	if err != nil {
		return nil, fmt.Errorf("start the real Vault: %w", err)
	}
	proxy, client, err := s.startProxy(ctx, p.vault, v)
	if err != nil {
		return nil, fmt.Errorf("start Vault Proxy: %w", err)
	}
	sidecar, clients, err := s.startSidecar(ctx, "connections:\n"+connection("real", v))
	if err != nil {
		return nil, err
	}
	direct, err := vaultClient(v.Address, v.RootToken)
	if err != nil {
		return nil, err
	}
	return []subject{
		{subjectProxyMade, 1, proxyMade, readDirect(clientMade)},
		{"miss, real Vault", 1, sidecar,
			resolve(clients, fresh(requests("real", usualSize, 0, usual)))},
		{"vault/api, real Vault", 1, nil, readDirect(direct)},
		{subjectProxy, 1, proxy, readDirect(client)},
	}, nil
}

// target is one promise about speed.
type target struct {
	Measure string
	Value   float64
	Unit    string // nothing for a ratio
	AtLeast float64
	AtMost  float64 // 0: AtLeast counts
}

func (t target) isMet() bool {
	if t.AtMost > 0 {
		return t.Value <= t.AtMost
	}
	return t.Value >= t.AtLeast
}

// loadTargets compares medians of one run. It leaves out what was not measured.
func loadTargets(lines []loadLine) []target {
	find := func(subject string, callers int) []measurement {
		for _, one := range lines {
			if one.Subject == subject && one.Callers == callers {
				return one.Rounds
			}
		}
		return nil
	}
	var all []target
	compare := func(t target, of func(measurement) float64, callers int, subject, with string) {
		a, b := find(subject, callers), find(with, callers)
		if len(a) > 0 && len(b) > 0 {
			t.Value = median(of, a) / median(of, b)
			all = append(all, t)
		}
	}
	cpu := func(m measurement) float64 { return float64(cpuTime(m)) }
	tail := func(m measurement) float64 { return float64(p99(m)) }
	compare(target{Measure: "cached Resolve throughput / echo, 64 callers", AtLeast: 0.95},
		perSecond, 64, subjectCached, subjectEcho)
	compare(target{Measure: "server CPU per cached Resolve / echo, 64 callers", AtMost: 1.10}, cpu,
		64, subjectCached, subjectEcho)
	compare(target{Measure: "p99 of cached Resolve / echo, 16 callers", AtMost: 1.15}, tail, 16,
		subjectCached, subjectEcho)
	compare(target{Measure: "throughput with metrics exported / echo, 64 callers", AtLeast: 0.85},
		perSecond, 64, subjectMetrics, subjectEcho)
	compare(target{Measure: "secrets per second, BatchResolve of 10 / Resolve, 16 callers",
		AtLeast: 6}, perSecond, 16, subjectBatch, subjectCached)
	compare(target{Measure: "cached Resolve throughput / Vault Proxy, 16 callers", AtLeast: 12},
		perSecond, 16, subjectCached, subjectProxy)
	compare(target{Measure: "miss throughput / vault/api direct, 16 callers, Vault 0 ms",
		AtLeast: 0.75}, perSecond, 16, subjectMiss, subjectDirect)
	compare(target{Measure: "server CPU of a miss / of a cached Resolve, 16 callers, Vault 0 ms",
		AtMost: 3.5}, cpu, 16, subjectMiss, subjectCached)
	return all
}

func printTargets(all []target) {
	for _, one := range all {
		verdict := "met"
		if !one.isMet() {
			verdict = "NOT MET"
		}
		fmt.Printf("%-72s %8s %-2s %s %s: %s\n", one.Measure, number(one.Value), one.Unit,
			one.bound(), one.Unit, verdict)
	}
}

func (t target) bound() string {
	if t.AtMost > 0 {
		return "at most " + number(t.AtMost)
	}
	return "at least " + number(t.AtLeast)
}
