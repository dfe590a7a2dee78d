package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secret-sidecar/secret-sidecar/client"
)

// clientResults are what `make bench-clients` has found of the client libraries.
type clientResults struct {
	Made, Machine, Node string
	Rounds              int
	Each                string
	Targets             []target
	Calls               []clientCalls
	Notes               []string
}

// clientCalls is what one kind of call did, one after the other: the medians of all rounds.
type clientCalls struct {
	Name           string
	P50, P99       float64 // µs
	CallsPerSecond float64
}

// The names that node/clients.mjs gives what it measures, and what they are.
var clientSubjects = [][2]string{
	{"echo", "Node.js: bare grpc-js"}, {"get", "Node.js: `get`"},
	{"echoOf10", "Node.js: bare grpc-js, 10 secrets"}, {"getAll", "Node.js: `getAll` of 10 fields"},
	{"near", "Node.js: `get` from the near cache"},
	{"goEcho", "Go: bare gRPC"}, {"goNear", "Go: `Get` from the near cache"},
}

// clientRound is what node/clients.mjs says of one round of one subject.
type clientRound struct {
	Name                string
	P50, P99, PerSecond float64
}

// outages are how long the sidecar is away.
var outages = []time.Duration{2 * time.Second, 10 * time.Second, 90 * time.Second}

// measureClients is `make bench-clients`.
func measureClients(ctx context.Context, s *stage, p plan) (*clientResults, error) {
	if err := s.setUp(ctx); err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("find Node.js: %w", err)
	}
	full := newResults(p)
	r := &clientResults{Made: full.Made, Machine: full.Machine, Node: string(version[:len(version)-1]), Rounds: p.rounds, Each: p.each.String()}
	for _, part := range []func(context.Context, *stage, plan, *clientResults) error{measureClientCalls, measurePace, measureReturns} {
		if err := part(ctx, s, p, r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// measureClientCalls compares the libraries' calls with bare ones.
func measureClientCalls(ctx context.Context, s *stage, p plan, r *clientResults) error {
	say("calls of the client libraries")
	node := nodePart(ctx, "calls", s.echoSocket, strconv.Itoa(p.rounds), strconv.FormatInt(p.each.Milliseconds(), 10))
	output, err := node.Output()
	if err != nil {
		return fmt.Errorf("measure in Node.js: %w", err)
	}
	rounds := map[string][]clientRound{}
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var one clientRound
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read what Node.js says: %w", err)
		}
		rounds[one.Name] = append(rounds[one.Name], one)
	}
	if err := measureNearInGo(ctx, s, p, rounds); err != nil {
		return err
	}
	for _, subject := range clientSubjects {
		all := rounds[subject[0]]
		r.Calls = append(r.Calls, clientCalls{Name: subject[1],
			P50:            medianOf(all, func(c clientRound) float64 { return c.P50 }),
			P99:            medianOf(all, func(c clientRound) float64 { return c.P99 }),
			CallsPerSecond: medianOf(all, func(c clientRound) float64 { return c.PerSecond })})
	}
	median := func(c clientRound) float64 { return c.P50 }
	rate := func(c clientRound) float64 { return c.PerSecond }
	r.Targets = append(r.Targets,
		target{Measure: "p50 of Node's `get` / bare grpc-js", Value: ratioOf(rounds["get"], rounds["echo"], median), AtMost: 1.1},
		target{Measure: "p50 of Node's `getAll` of 10 fields / bare grpc-js, 10 secrets", Value: ratioOf(rounds["getAll"], rounds["echoOf10"], median), AtMost: 1.1},
		target{Measure: "hits a second of Node's near cache / bare grpc-js", Value: ratioOf(rounds["near"], rounds["echo"], rate), AtLeast: 50},
		target{Measure: "hits a second of Go's near cache / bare gRPC", Value: ratioOf(rounds["goNear"], rounds["goEcho"], rate), AtLeast: 50})
	return nil
}

func medianOf(all []clientRound, of func(clientRound) float64) float64 {
	var values []float64
	for _, one := range all {
		values = append(values, of(one))
	}
	return spreadOf(values).Median
}

// ratioOf returns the median of the ratios of the rounds: each compares what ran side by side.
func ratioOf(ours, bare []clientRound, of func(clientRound) float64) float64 {
	var ratios []float64
	for i := range min(len(ours), len(bare)) {
		ratios = append(ratios, of(ours[i])/of(bare[i]))
	}
	return spreadOf(ratios).Median
}

// measureNearInGo adds the Go client's hits, and the bare calls beside them.
func measureNearInGo(ctx context.Context, s *stage, p plan, rounds map[string][]clientRound) error {
	near, err := client.Open(ctx, client.Socket(s.sidecarSocket), client.NearCache(time.Hour))
	if err != nil {
		return err
	}
	defer near.Close() //nolint:errcheck // it was used
	one := requests("quick", usualSize, 0, 1)
	for range p.rounds {
		for name, call := range map[string]func(context.Context, int, int) error{
			"goEcho": echoed(s.echo[:1], one),
			"goNear": func(ctx context.Context, _, _ int) error {
				_, err := near.Get(ctx, one[0].GetPath(), client.Connection("quick"))
				return err
			},
		} {
			m, err := measure(ctx, subject{name: name, secrets: 1, call: call}, 1, p.each)
			if err != nil {
				return err
			}
			rounds[name] = append(rounds[name], clientRound{name, micros(m.P50), micros(m.P99), m.PerSecond})
		}
	}
	return nil
}

// measurePace calls a thousand times a second, for a minute.
func measurePace(ctx context.Context, s *stage, p plan, r *clientResults) error {
	length := time.Minute
	if p.quick {
		length = time.Second
	}
	say("1,000 calls a second")
	output, err := nodePart(ctx, "paced", s.sidecarSocket, strconv.Itoa(int(length.Seconds()))).Output()
	if err != nil {
		return fmt.Errorf("call from Node.js: %w", err)
	}
	var said struct {
		Calls, Failed     int
		Seconds, P50, P99 float64
	}
	if err := json.Unmarshal(output, &said); err != nil {
		return fmt.Errorf("read what Node.js says: %w", err)
	}
	r.Targets = append(r.Targets, target{Measure: "answered / calls of Node's `get`, 1,000 a second for a minute",
		Value: float64(said.Calls-said.Failed) / float64(said.Calls), AtLeast: 1})
	r.Notes = append(r.Notes, fmt.Sprintf("1,000 calls a second: %d calls in %.1f s, with a p50 of %.0f µs and a p99 of %.1f ms.",
		said.Calls, said.Seconds, said.P50, said.P99/1000))
	return nil
}

// measureReturns kills the sidecar under ten loops of each client, and measures when they have an answer again.
func measureReturns(ctx context.Context, s *stage, p plan, r *clientResults) error {
	inNode, err := startLoopsInNode(ctx, s.sidecarSocket)
	if err != nil {
		return err
	}
	inGo, err := startLoopsInGo(ctx, s.sidecarSocket)
	if err != nil {
		return err
	}
	both := []loops{inNode, inGo}
	for i, away := range outages {
		if p.quick {
			away = time.Duration(i+1) * time.Second
		}
		say("the sidecar is away for %v", away)
		back, err := s.killFor(ctx, away, both)
		if err != nil {
			return err
		}
		for _, l := range both {
			answered, err := l.answer(ctx)
			if err != nil {
				return fmt.Errorf("wait for an answer in %s: %w", l.language, err)
			}
			r.Targets = append(r.Targets, target{
				Measure: fmt.Sprintf("first answer in %s after kill -9 for %d s, from when the sidecar is ready", l.language, int(away.Seconds())),
				Value:   max(0, millis(answered.Sub(back))), Unit: "ms", AtMost: 1000})
		}
	}
	for _, l := range both {
		calls, failed, err := l.stop()
		if err != nil {
			return err
		}
		r.Targets = append(r.Targets, target{Measure: "answered / calls of ten loops in " + l.language + " around the three",
			Value: float64(calls-failed) / float64(calls), AtLeast: 1})
		r.Notes = append(r.Notes, fmt.Sprintf("The ten loops in %s made %d calls around the three outages.", l.language, calls))
	}
	return nil
}

// killFor kills the sidecar, starts it again after a while, and returns when it was ready.
func (s *stage) killFor(ctx context.Context, away time.Duration, all []loops) (back time.Time, err error) {
	settle(ctx)
	s.sidecar.kill()
	for _, l := range all {
		l.forget()
	}
	timer := time.NewTimer(away)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	if s.sidecar, err = s.keep(s.sidecar.again()); err != nil {
		return time.Time{}, err
	}
	err = answers(ctx, s.sidecarSocket, "")
	return time.Now(), err
}

// loops call again and again. A pause of half a second between two answers of any of them is an outage.
type loops struct {
	language string

	back chan time.Time // when an answer came after an outage
	stop func() (calls, failed int64, err error)
}

// answer waits for the first answer after an outage.
func (l loops) answer(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	select {
	case at := <-l.back:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// tell says when an answer came after an outage, unless there are more of them than were made: a machine that
// stands still for a moment looks like one.
func (l loops) tell(at time.Time) {
	select {
	case l.back <- at:
	default:
	}
}

// forget drops what was told before an outage.
func (l loops) forget() {
	for len(l.back) > 0 {
		<-l.back
	}
}

// pauseOfOutage is longer than any call that the sidecar answers.
const pauseOfOutage = 500 * time.Millisecond

func startLoopsInGo(ctx context.Context, socket string) (loops, error) {
	c, err := client.Open(ctx, client.Socket(socket))
	if err != nil {
		return loops{}, err
	}
	var calls, failed, last atomic.Int64
	last.Store(time.Now().UnixNano())
	l := loops{language: "Go", back: make(chan time.Time, len(outages))}
	stopped := make(chan struct{})
	var group sync.WaitGroup
	path := requests("quick", usualSize, 0, 1)[0].GetPath()
	for range 10 {
		group.Go(func() {
			for {
				select {
				case <-stopped:
					return
				default:
				}
				if _, err := c.Get(ctx, path, client.Connection("quick"), client.Timeout(10*time.Minute)); err != nil {
					failed.Add(1)
				}
				calls.Add(1)
				now := time.Now()
				if before := last.Swap(now.UnixNano()); now.UnixNano()-before > int64(pauseOfOutage) {
					l.tell(now)
				}
			}
		})
	}
	l.stop = func() (int64, int64, error) {
		close(stopped)
		group.Wait()
		return calls.Load(), failed.Load(), c.Close()
	}
	return l, nil
}

// startLoopsInNode returns once they run.
func startLoopsInNode(ctx context.Context, socket string) (loops, error) {
	command := nodePart(ctx, "away", socket)
	input, err := command.StdinPipe()
	if err != nil {
		return loops{}, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return loops{}, err
	}
	if err := command.Start(); err != nil {
		return loops{}, err
	}
	type line struct{ Back, Calls, Failed int64 }
	l := loops{language: "Node", back: make(chan time.Time, len(outages))}
	last, begun := make(chan line, 1), make(chan struct{})
	go func() { // ends with the process
		defer close(last)
		lines := bufio.NewScanner(output)
		for first := true; lines.Scan(); first = false {
			var one line
			switch err := json.Unmarshal(lines.Bytes(), &one); {
			case err != nil:
				continue
			case first:
				close(begun)
			case one.Back > 0:
				l.tell(time.UnixMilli(one.Back))
			default:
				last <- one
			}
		}
	}()
	l.stop = func() (int64, int64, error) {
		if _, err := io.WriteString(input, "stop\n"); err != nil {
			return 0, 0, err
		}
		one := <-last
		return one.Calls, one.Failed, command.Wait()
	}
	select {
	case <-begun:
		return l, nil
	case <-time.After(time.Minute):
		return loops{}, errors.New("the loops in Node.js do not begin: is the client built (make test-node)?")
	}
}

// nodePart is a command of node/clients.mjs.
func nodePart(ctx context.Context, args ...string) *exec.Cmd {
	script := "bench/node/clients.mjs"
	if _, err := os.Stat(script); err != nil { // go test runs in this folder
		script = "node/clients.mjs"
	}
	command := exec.CommandContext(ctx, "node", append([]string{script}, args...)...)
	command.Stderr = os.Stderr
	return command
}
