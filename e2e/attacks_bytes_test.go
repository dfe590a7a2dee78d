package e2e_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestAttacksByBytesHarmNobodyElse(t *testing.T) {
	t.Parallel()
	d := newAttackSetup(t)
	const preface = http2.ClientPreface
	frames := func(write func(f *http2.Framer)) string {
		var text bytes.Buffer
		write(http2.NewFramer(&text, nil))
		return preface + text.String()
	}
	settings := func(f *http2.Framer) { _ = f.WriteSettings() }
	headers := func(more ...string) []byte {
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		fields := append([]string{":method", "POST", ":scheme", "http", ":authority", "x",
			":path", "/secretsidecar.v1.SecretService/Resolve", "content-type", "application/grpc",
			"te", "trailers"}, more...)
		for i := 0; i+1 < len(fields); i += 2 {
			_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return block.Bytes()
	}
	open := func(f *http2.Framer, stream uint32, block []byte) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block,
			EndHeaders: true})
	}
	for name, sent := range map[string]string{
		"HTTP/1.1":                   "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"HTTP/1.1 with an upgrade":   "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"HTTP/1.1 POST of a request": "POST /secretsidecar.v1.SecretService/Resolve HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\x00\x00\x00\x00\x00",
		"HTTP/0.9":                   "GET /\r\n",
		"a TLS hello": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" +
			strings.Repeat("r", 500),
		"SSH":                        "SSH-2.0-x\r\n",
		"zeros":                      strings.Repeat("\x00", 4096),
		"half a preface":             preface[:10],
		"a preface twice":            preface + preface,
		"a preface and nothing":      preface,
		"a preface and noise":        preface + strings.Repeat("noise", 2000),
		"a frame of 16 MB announced": preface + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",
		"a frame of an unknown type": frames(func(f *http2.Framer) { settings(f); _ = f.WriteRawFrame(0xee, 0, 0, []byte("x")) }),
		"data without a stream": frames(func(f *http2.Framer) {
			settings(f)
			_ = f.WriteData(1,
				true, []byte("x"))
		}),
		"a stream of the server's": frames(func(f *http2.Framer) {
			settings(f)
			open(f, 2,
				headers())
		}),
		"stream 0":              frames(func(f *http2.Framer) { settings(f); f.AllowIllegalWrites = true; open(f, 0, headers()) }),
		"a window update of 0":  frames(func(f *http2.Framer) { settings(f); f.AllowIllegalWrites = true; _ = f.WriteWindowUpdate(0, 0) }),
		"an overflowing window": frames(func(f *http2.Framer) { settings(f); _ = f.WriteWindowUpdate(0, 1<<31-1) }),
		"a push promise": frames(func(f *http2.Framer) {
			settings(f)
			_ = f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2,
				BlockFragment: headers(), EndHeaders: true})
		}),
		"headers that never end": frames(func(f *http2.Framer) {
			settings(f)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers()})
		}),
		"headers that are no HPACK": frames(func(f *http2.Framer) {
			settings(f)
			open(f, 1,
				bytes.Repeat([]byte{0xff}, 500))
		}),
		"a header of 100 kB": frames(func(f *http2.Framer) {
			settings(f)
			writeLongHeaders(f, headers("x-long", strings.Repeat("ä", 50_000)))
		}),
		"a message of 4 GB announced": frames(func(f *http2.Framer) {
			settings(f)
			open(f, 1, headers())
			_ = f.WriteData(1, false, []byte("\x00\xff\xff\xff\xff"))
		}),
		"a message compressed with nothing": frames(func(f *http2.Framer) {
			settings(f)
			open(f, 1, headers("grpc-encoding", "nothing"))
			_ = f.WriteData(1, true, []byte("\x01\x00\x00\x00\x00"))
		}),
		"a timeout that is none": frames(func(f *http2.Framer) {
			settings(f)
			open(f, 1,
				headers("grpc-timeout", "99999999999H"))
		}),
		"settings of 10,000 frames": frames(func(f *http2.Framer) {
			for range 10_000 {
				settings(f)
			}
		}),
		"pings of 10,000 frames": frames(func(f *http2.Framer) {
			settings(f)
			for range 10_000 {
				_ = f.WritePing(false, [8]byte{})
			}
		}),
		"10,000 rapid resets": frames(func(f *http2.Framer) {
			settings(f)
			for i := range uint32(10_000) {
				open(f, 2*i+1, headers())
				_ = f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
			}
		}),
		"10,000 empty continuations": frames(func(f *http2.Framer) {
			settings(f)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers()})
			for range 10_000 {
				_ = f.WriteContinuation(1, false, nil)
			}
		}),
		"2,000 streams that never speak": frames(func(f *http2.Framer) {
			settings(f)
			for i := range uint32(2_000) {
				open(f, 2*i+1, headers())
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			conn := d.connect()
			defer func() { _ = conn.Close() }()
			// The sidecar may hang up in the middle, which is its right.
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			_, _ = io.Copy(conn, strings.NewReader(sent))
			d.requireUnharmed()
			answer := make([]byte, 64<<10)
			n, _ := conn.Read(answer)
			if bytes.Contains(answer[:n], []byte(d.value)) {
				t.Error("the secret was answered")
			}
		})
	}
}

// writeLongHeaders writes a block of headers in as many frames as it needs.
func writeLongHeaders(f *http2.Framer, block []byte) {
	const most = 16 << 10
	first := block[:min(most, len(block))]
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first,
		EndHeaders: len(first) == len(block)})
	for rest := block[len(first):]; len(rest) > 0; {
		part := rest[:min(most, len(rest))]
		rest = rest[len(part):]
		_ = f.WriteContinuation(1, len(rest) == 0, part)
	}
}

// connect opens a bare connection to the socket.
func (d *attackSetup) connect() net.Conn {
	d.sandbox.t.Helper()
	conn, err := net.Dial("unix", d.sandbox.socket())
	d.sandbox.must(err)
	return conn
}

func TestAThousandClientsThatNeverFinishAreDropped(t *testing.T) {
	t.Parallel()
	d := newAttackSetup(t)
	const clients = 1000
	before := d.descriptors()
	var idle []net.Conn
	t.Cleanup(func() {
		for _, conn := range idle {
			_ = conn.Close()
		}
	})
	for i := range clients {
		conn := d.connect()
		if i%2 == 0 { // half of them begin a handshake
			_, _ = conn.Write([]byte(http2.ClientPreface[:10]))
		}
		idle = append(idle, conn)
	}
	d.requireUnharmed()
	eventually(t, "clients that never finish the handshake are dropped",
		func() bool { return d.descriptors() < before+clients/10 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if deadline, ok := ctx.Deadline(); ok {
		_ = idle[0].SetReadDeadline(deadline)
	}
	if _, err := io.Copy(io.Discard, idle[0]); err != nil {
		t.Errorf("the sidecar has not hung up: %v", err)
	}
	d.requireUnharmed()
}
