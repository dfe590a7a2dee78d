//go:build !race

package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// statedMemory is what docs/kubernetes-pod.md says that a sidecar takes at most, with a cache of so
// many bytes, whatever its callers ask for.
func statedMemory(cacheBytes int64) int64 { return 125e6 + cacheBytes*17/10 }

const (
	attackedCache = 16 << 20
	// attacked is the configuration of what is attacked.
	attacked = "cache: {max_bytes: 16MiB}\ndefaults: {timeout: 30s}\n"
)

// newMemorySetup is a sidecar whose Vault answers a secret of any path that begins with "large" or
// "keys": with one value of 900 kB or 3.9 MB, or with 8,000 keys that no other secret has.
func newMemorySetup(t *testing.T) *setup {
	t.Helper()
	s := newUnstartedSetup(t, vaulttest.Dev(t), nil, readSecrets)
	s.proxy.override = func(path string) http.HandlerFunc {
		name, isSecret := strings.CutPrefix(path, "secret/data/")
		switch {
		case isSecret && strings.HasPrefix(name, "largest"):
			return oneValue(4<<20 - 4<<10)
		case isSecret && strings.HasPrefix(name, "large"):
			return oneValue(900 << 10)
		case isSecret && strings.HasPrefix(name, "keys"):
			return manyKeys(name)
		}
		return nil
	}
	s.sidecar = s.start("--log-level", "warn", "--config", s.writeConfig(attacked))
	return s
}

const answerMetadata = `"metadata":{"created_time":"2026-01-01T00:00:00Z","deletion_time":"","destroyed":false,"version":1}`

func oneValue(size int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":{"data":{"key":"`+strings.Repeat("x", size)+`"},`+answerMetadata+`}}`)
	}
}

func manyKeys(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var text bytes.Buffer
		text.WriteString(`{"data":{"data":{"key":"x"`)
		for i := range 8_000 {
			fmt.Fprintf(&text, `,"%s-%020d":"v"`, name, i)
		}
		text.WriteString(`},` + answerMetadata + `}}`)
		_, _ = w.Write(text.Bytes())
	}
}

// batchOfLarge asks for so many secrets of 900 kB.
func batchOfLarge(count int, maxAge *durationpb.Duration) *secretsidecarv1.BatchResolveRequest {
	request := &secretsidecarv1.BatchResolveRequest{}
	for i := range count {
		request.Requests = append(request.Requests,
			&secretsidecarv1.ResolveRequest{Path: fmt.Sprintf("secret/data/large%d/key", i), MaxAge: maxAge})
	}
	return request
}

// requireStatedMemory compares the most that was ever resident with what is stated.
func requireStatedMemory(t *testing.T, s *setup) {
	t.Helper()
	peak := s.memory("VmHWM")
	t.Logf("%d MB at the peak", peak/1e6)
	if most := statedMemory(attackedCache); peak > most {
		t.Errorf("%d MB were resident, want %d MB at most", peak/1e6, most/1e6)
	}
}

func TestOverloadByBatchesOfLargeSecretsStaysWithinTheMemoryStated(t *testing.T) {
	s := newMemorySetup(t)
	for range 2 {
		answer, err := s.BatchResolve(t.Context(), batchOfLarge(256, nil))
		s.must(err)
		fit := 0
		for _, result := range answer.GetResults() {
			if result.GetSecret() != nil {
				fit++
			} else if reason := result.GetError().GetReason(); reason != "SECRET_TOO_LARGE" {
				t.Errorf("got %s", reason)
			}
		}
		if fit != 4 {
			t.Errorf("%d values fit, want 4", fit)
		}
	}
	requireStatedMemory(t, s)
}

func TestOverloadByParallelReadsOfLargeSecretsStaysWithinTheMemoryStated(t *testing.T) {
	s := newMemorySetup(t)
	var group sync.WaitGroup
	for i := range 64 {
		group.Go(func() {
			_, err := s.resolve(fmt.Sprintf("secret/data/largest%d/key", i))
			if reason := failureOf(err); reason != nil && reason.reason != "OVERLOADED" {
				t.Error(err)
			}
		})
	}
	group.Wait()
	requireStatedMemory(t, s)
}

func TestOverloadBySecretsWithManyKeysStaysWithinTheMemoryStated(t *testing.T) {
	s := newMemorySetup(t)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 40 {
				if _, err := s.resolve(fmt.Sprintf("secret/data/keys%d-%d/key", worker, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	requireStatedMemory(t, s)
}

// A worker whose streams have a window of 0 asks for 3.6 MB every 60 ms.
func TestOverloadByAWorkerThatDoesNotReadStaysWithinTheMemoryStated(t *testing.T) {
	s := newMemorySetup(t)
	request := batchOfLarge(4, nil)
	_, err := s.BatchResolve(t.Context(), request)
	s.must(err)
	s.value("secret/data/app/key", s.secret, fromVault)
	deaf := s.connectDeaf(request)
	everyFor(t, 15*time.Second, 60*time.Millisecond, func() {
		deaf.ask()
		s.value("secret/data/app/key", s.secret, fromCache) // others are answered
	})
	requireStatedMemory(t, s)
	if refused := deaf.refused(); refused < 100 {
		t.Errorf("%d requests were refused", refused)
	}
	if !s.logs("a client does not read its answers") {
		t.Error("the log does not say so")
	}
	began := time.Now()
	s.signal(syscall.SIGTERM)
	s.awaitExit()
	if took := time.Since(began); took > 8*time.Second { // the drain timeout is 10 s
		t.Errorf("the end took %v", took)
	}
}

func TestOverloadEndsForAConnectionThatDoesNotRead(t *testing.T) {
	s := newMemorySetup(t)
	request := batchOfLarge(4, nil)
	_, err := s.BatchResolve(t.Context(), request)
	s.must(err)
	deaf := s.connectDeaf(request)
	deaf.ask()
	select {
	case <-deaf.closed:
	case <-time.After(2 * time.Minute): // it is closed after 30 s
		t.Error("the connection is still open")
	}
}

// everyFor does something every so often for a time.
func everyFor(t *testing.T, total, pause time.Duration, do func()) {
	t.Helper()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for end := time.After(total); ; {
		select {
		case <-end:
			return
		case <-tick.C:
			do()
		}
	}
}

// deafClient is a connection that takes headers and no data.
type deafClient struct {
	t       *testing.T
	framer  *http2.Framer
	message []byte
	stream  uint32
	closed  chan struct{} // closed when the sidecar has closed the connection

	mu    sync.Mutex
	ended int // guarded by mu: streams that ended without data
}

// connectDeaf opens a connection that asks for the batch.
func (s *setup) connectDeaf(request *secretsidecarv1.BatchResolveRequest) *deafClient {
	s.t.Helper()
	conn, err := net.Dial("unix", s.socket())
	s.must(err)
	s.t.Cleanup(func() { _ = conn.Close() })
	text, err := proto.Marshal(request)
	s.must(err)
	d := &deafClient{t: s.t, framer: http2.NewFramer(conn, conn), stream: 1, closed: make(chan struct{})}
	d.message = append([]byte{0, 0, 0, byte(len(text) >> 8), byte(len(text))}, text...)
	_, err = io.WriteString(conn, http2.ClientPreface)
	s.must(err)
	s.must(d.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	go d.listen() // ends with the connection
	return d
}

// ask sends the request on one more stream.
func (d *deafClient) ask() {
	d.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "x"},
		{":path", secretsidecarv1.SecretService_BatchResolve_FullMethodName},
		{"content-type", "application/grpc"}, {"te", "trailers"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	_ = d.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: d.stream, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = d.framer.WriteData(d.stream, true, d.message)
	d.stream += 2
}

// refused is how many streams ended without an answer.
func (d *deafClient) refused() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ended
}

func (d *deafClient) listen() {
	defer close(d.closed)
	for {
		frame, err := d.framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.PingFrame:
			if !frame.IsAck() {
				_ = d.framer.WritePing(true, frame.Data)
			}
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				d.mu.Lock()
				d.ended++
				d.mu.Unlock()
			}
		}
	}
}
