package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// largeBodies answers each read with a secret of so many bytes, and counts how many of them are
// read beyond their beginning at once.
type largeBodies struct {
	size    func(path string) int
	chunked bool
	hang    chan struct{} // what a path with "hangs" waits for in its middle
	now     atomic.Int32
	most    atomic.Int32
}

func (l *largeBodies) RoundTrip(r *http.Request) (*http.Response, error) {
	text := `{"data":{"data":{"k":"` + strings.Repeat("x", l.size(r.URL.Path)) + `"},"metadata":` +
		someMetadata + `}}`
	body := &largeBody{Reader: strings.NewReader(text), of: l}
	if strings.Contains(r.URL.Path, "hangs") {
		body.hang = l.hang
	}
	resp := &http.Response{StatusCode: http.StatusOK, Body: body, ContentLength: int64(len(text)),
		Header: http.Header{}, Request: r}
	if l.chunked {
		resp.ContentLength = -1
	}
	return resp, nil
}

type largeBody struct {
	io.Reader
	of      *largeBodies
	read    int
	counted bool
	hang    chan struct{}
}

func (b *largeBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.read += n
	if b.read > 2*smallAnswer {
		if b.hang != nil {
			<-b.hang
		}
		if !b.counted {
			b.counted = true
			b.of.most.Store(max(b.of.most.Load(), b.of.now.Add(1)))
		}
	}
	return n, err
}

func (b *largeBody) Close() error {
	if b.counted {
		b.counted = false
		b.of.now.Add(-1)
	}
	return nil
}

// over returns a client whose answers come from the bodies.
func (l *largeBodies) over(t *testing.T, memory *AnswerMemory) *Client {
	t.Helper()
	c, err := New(Config{Endpoint: Endpoint{Address: "http://vault.test"},
		Options: Options{Transport: l, Memory: memory}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLargeAnswersAreReadWithinTheMemoryForThem(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		bodies := &largeBodies{size: func(string) int {
			return MaxAnswerBytes - 1<<10
		}, chunked: chunked}
		memory := NewAnswerMemory(2 * LargestRead)
		var group sync.WaitGroup
		for range 6 { // of several clients
			c := bodies.over(t, memory)
			group.Go(func() {
				if _, err := c.Read(t.Context(), redact.New("token"), "secret/data/large",
					0); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if most := bodies.most.Load(); most > 2 {
			t.Errorf("%d answers were read at once, want 2 at most", most)
		}
		if !memory.free.TryAcquire(2 * LargestRead) {
			t.Error("memory is not given back")
		}
	}
}

func TestALargeAnswerThatHangsHoldsUpNoSmallOne(t *testing.T) {
	bodies := &largeBodies{hang: make(chan struct{}), size: func(path string) int {
		if strings.Contains(path, "small") {
			return 1 << 10
		}
		return MaxAnswerBytes - 1<<10
	}}
	memory := NewAnswerMemory(0)
	c, other := bodies.over(t, memory), bodies.over(t, memory)
	var group sync.WaitGroup
	group.Go(func() { _, _ = c.Read(t.Context(), redact.New("token"), "secret/data/hangs", 0) })
	for memory.free.TryAcquire(LargestRead / 2) { // until it has taken what there is
		memory.free.Release(LargestRead / 2)
	}
	if _, err := other.Read(t.Context(), redact.New("token"), "secret/data/small", 0); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithDeadlineCause(t.Context(), time.Now().Add(50*time.Millisecond),
		ErrTimeout)
	defer cancel()
	_, err := other.Read(ctx, redact.New("token"), "secret/data/large", 0)
	if !errors.Is(err, ErrOverloaded) || Outage(err) {
		t.Errorf("a large answer that finds no memory: %v", err)
	}
	third := bodies.over(t, NewAnswerMemory(2*LargestRead))
	group.Go(func() { _, _ = third.Read(t.Context(), redact.New("token"), "secret/data/hangs", 0) })
	if _, err := bodies.over(t, third.memory.shared).Read(t.Context(), redact.New("token"),
		"secret/data/large", 0); err != nil {
		t.Errorf("one Vault hangs, and there is memory for others: %v", err)
	}
	close(bodies.hang)
	group.Wait()
	if _, err := other.Read(t.Context(), redact.New("token"), "secret/data/large", 0); err != nil {
		t.Error(err)
	}
}

func TestMemoryIsGivenBackWhateverTheAnswer(t *testing.T) {
	noise := bytes.Repeat([]byte("x"), 1<<20)
	for name, answer := range map[string]struct {
		status int
		body   string
	}{
		"no JSON":        {200, string(noise)},
		"too large":      {200, strings.Repeat(string(noise), 5)},
		"an outage":      {503, string(noise)},
		"a lagging node": {412, `{"errors":["required index state not present"],"x":"` + string(noise) + `"}`},
		"not found":      {404, `{"errors":[],"x":"` + string(noise) + `"}`},
		"denied":         {403, `{"errors":["permission denied"],"x":"` + string(noise) + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			memory := NewAnswerMemory(0)
			transport := roundTrip(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: answer.status, ContentLength: -1,
					Header: http.Header{}, Request: r,
					Body: io.NopCloser(strings.NewReader(answer.body))}, nil
			})
			c, err := New(Config{Endpoint: Endpoint{Address: "http://vault.test"},
				Options: Options{Transport: transport, Memory: memory}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(t.Context(), redact.New("token"), "secret/data/x", 0); err == nil {
				t.Error("it is a secret")
			}
			if !memory.free.TryAcquire(LargestRead) {
				t.Error("memory is not given back")
			}
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
