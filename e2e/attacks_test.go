package e2e_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// attackSetup is a sidecar under attack. Whatever it is sent, it goes on answering others, and asks Vault for nothing but
// secrets below secret/data/.
type attackSetup struct {
	*sidecar
	proxy *proxy
	value string
}

func newAttackSetup(t *testing.T) *attackSetup {
	t.Helper()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	g := s.newProxy(v)
	d := &attackSetup{proxy: g, value: s.newSecret()}
	s.writeSecret(v, "secret/data/app", "key", d.value)
	project := strings.Replace(s.defaultLogin(v).connection("project", g.address), "scope: platform", "scope: project\n    project_ids: [p1]", 1)
	d.sidecar = s.start("--config", s.config(s.defaultLogin(v).connection("prod", g.address), project))
	return d
}

// requireUnharmed fails the test unless others are answered, and unless Vault was asked for nothing that no reference
// may lead to.
func (d *attackSetup) requireUnharmed() {
	d.sandbox.t.Helper()
	d.answer(&secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/app/key", MaxAge: readVaultNow}, d.value, fromVault)
	for _, one := range d.proxy.seen() {
		isOurs := one.path == loginPath || one.path == "sys/internal/ui/mounts" || strings.HasPrefix(one.path, "sys/internal/ui/mounts/") ||
			strings.HasPrefix(one.path, "secret/data/") || strings.HasPrefix(one.path, "auth/token/")
		if !isOurs || slices.Contains(strings.Split(one.path, "/"), "..") {
			d.sandbox.t.Errorf("%s %q reached Vault", one.method, one.path)
		}
	}
}

// in is the same setup for a subtest.
func (d *attackSetup) in(t *testing.T) *attackSetup {
	return &attackSetup{sidecar: d.sidecar.in(t), proxy: d.proxy, value: d.value}
}

var (
	notFound     = failure{codes.NotFound, "SECRET_NOT_FOUND"}
	noConnection = failure{codes.NotFound, "CONNECTION_NOT_FOUND"}
)

func TestAttacksByReferenceReachNothing(t *testing.T) {
	t.Parallel()
	d := newAttackSetup(t)
	for _, attack := range []struct {
		name, path, key string
		want            failure
	}{
		{"traversal", "secret/data/../../sys/mounts/k", "", invalidPath},
		{"traversal at the start", "../sys/data/mounts/k", "", invalidPath},
		{"traversal at the end", "secret/data/app/..", "", invalidPath},
		{"traversal before data", "secret/../data/app/k", "", invalidPath},
		{"a dot segment", "secret/data/./app/k", "", invalidPath},
		{"a leading slash", "/secret/data/app/k", "", invalidPath},
		{"a trailing slash", "secret/data/app/k/", "", invalidPath},
		{"a double slash", "secret//data/app/k", "", invalidPath},
		{"a double slash inside", "secret/data//app/k", "", invalidPath},
		{"a scheme", "http://secret/data/app/k", "", invalidPath},
		{"nothing", "", "", invalidPath},
		{"a slash", "/", "", invalidPath},
		{"slashes", "////", "", invalidPath},
		{"too few segments", "secret/data/app", "", invalidPath},
		{"no data", "secret/metadata/app/k", "", invalidPath},
		{"data first", "data/secret/app/k", "", invalidPath},
		{"DATA", "secret/DATA/app/k", "", invalidPath},
		{"data with a space", "secret/data /app/k", "", invalidPath},
		{"sys", "sys/data/mounts/k", "", invalidPath},
		{"auth", "auth/data/token/k", "", invalidPath},
		{"identity", "identity/data/entity/k", "", invalidPath},
		{"cubbyhole", "cubbyhole/data/a/k", "", invalidPath},
		{"sys in a deeper mount", "sys/raw/data/core/k", "", invalidPath},
		{"a NUL", "secret/data/app\x00/k", "", invalidPath},
		{"a line feed", "secret/data/app\n/k", "", invalidPath},
		{"a header by CR LF", "secret/data/app\r\nX-Vault-Token: root/k", "", invalidPath},
		{"a tab", "secret/data/a\tb/k", "", invalidPath},
		{"an escape", "secret/data/\x1b[31m/k", "", invalidPath},
		{"a delete", "secret/data/\x7f/k", "", invalidPath},
		{"a C1 control", "secret/data/\u0085/k", "", invalidPath},
		{"1025 bytes", "secret/data/" + strings.Repeat("a", 1011) + "/k", "", invalidPath},
		{"a megabyte less", "secret/data/" + strings.Repeat("a", 900_000) + "/k", "", invalidPath},
		{"500 levels", "secret/data" + strings.Repeat("/a", 501), "", notFound},
		{"a key of two dots", "secret/data/app", "..", notFoundKey},
		{"a key with slashes", "secret/data/app", "../../x", notFoundKey},
		{"an empty key beside a whole path", "secret/data/x/app", "", notFound},
		{"encoded dots", "secret/data/%2e%2e/%2e%2e/sys/k", "", notFound},
		{"encoded dots in capitals", "secret/data/%2E%2E/sys/k", "", notFound},
		{"an encoded slash", "secret/data/..%2f..%2fsys/k", "", notFound},
		{"twice encoded", "secret/data/%252e%252e/k", "", notFound},
		{"an overlong dot", "secret/data/%c0%ae%c0%ae/k", "", notFound},
		{"dots of full width", "secret/data/．．/k", "", notFound},
		{"a division slash", "secret/data/..∕..∕sys/k", "", notFound},
		{"a backslash", `secret/data/..\..\sys/k`, "", notFound},
		{"three dots", "secret/data/.../k", "", notFound},
		{"a query", "secret/data/app?version=1&list=true/k", "", notFound},
		{"a fragment", "secret/data/app#x/k", "", notFound},
		{"a semicolon", "secret/data/..;/k", "", notFound},
		{"a space before dots", "secret/data/ ../k", "", notFound},
		{"an at sign", "secret/data/@evil.example/k", "", notFound},
		{"a percent at the end", "secret/data/app%/k", "", notFound},
		{"a wildcard", "secret/data/*/k", "", notFound},
		{"a template", "secret/data/{{identity.entity.id}}/k", "", notFound},
		{"a right-to-left override", "secret/data/\u202egnp.exe/k", "", invalidPathOrNotFound},
		{"a joiner", "secret/data/a\u200db/k", "", invalidPathOrNotFound},
	} {
		t.Run(attack.name, func(t *testing.T) {
			d := d.in(t)
			_, err := d.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: "prod", Path: attack.path, Key: attack.key})
			failed := failureOf(err)
			switch {
			case failed == nil:
				t.Errorf("%q was answered", attack.path)
			case attack.want == invalidPathOrNotFound && (*failed == invalidPath || *failed == notFound):
			case *failed != attack.want:
				t.Errorf("%q: %v, want %v", attack.path, err, attack.want)
			}
		})
	}
	d.requireUnharmed()
}

var (
	notFoundKey = failure{codes.NotFound, "KEY_NOT_FOUND"}
	// invalidPathOrNotFound is for what Unicode may call printable or not.
	invalidPathOrNotFound = failure{codes.OK, "either"}
)

func TestAttacksByRequestReachNothing(t *testing.T) {
	t.Parallel()
	d := newAttackSetup(t)
	const path = "secret/data/app/key"
	long := strings.Repeat("n", 500_000)
	for _, attack := range []struct {
		name    string
		request *secretsidecarv1.ResolveRequest
		want    failure
	}{
		{"another connection's name in capitals", &secretsidecarv1.ResolveRequest{Connection: "PROD", Path: path}, noConnection},
		{"a connection with a space", &secretsidecarv1.ResolveRequest{Connection: "prod ", Path: path}, noConnection},
		{"a connection of dots", &secretsidecarv1.ResolveRequest{Connection: "../prod", Path: path}, noConnection},
		{"every connection", &secretsidecarv1.ResolveRequest{Connection: "*", Path: path}, noConnection},
		{"a connection of 500 kB", &secretsidecarv1.ResolveRequest{Connection: long, Path: path}, noConnection},
		{"a connection with a line feed", &secretsidecarv1.ResolveRequest{Connection: "prod\n", Path: path}, noConnection},
		{"no connection of two", &secretsidecarv1.ResolveRequest{Path: path}, failure{codes.InvalidArgument, "CONNECTION_REQUIRED"}},
		{"no project", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path}, failure{codes.PermissionDenied, "PROJECT_REQUIRED"}},
		{"another project", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path, ProjectId: "p2"}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"a project in capitals", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path, ProjectId: "P1"}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"a project with a space", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path, ProjectId: "p1 "}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"two projects", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path, ProjectId: "p1,p2"}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"a project of 500 kB", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path, ProjectId: long}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"a negative max_age", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: path, MaxAge: durationpb.New(-time.Second)}, invalidRequest},
		{"a negative max_stale", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: path, MaxStale: durationpb.New(-1)}, invalidRequest},
		{"a version that never was", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: path, Version: 1<<32 - 1}, notFound},
	} {
		t.Run(attack.name, func(t *testing.T) {
			d := d.in(t)
			_, err := d.Resolve(t.Context(), attack.request)
			failed := requireFailure(t, d.sandbox, err, attack.want)
			if len(failed.Message()) > 1000 || strings.ContainsAny(failed.Message(), "\n\r\x00") {
				t.Errorf("the message repeats what it was sent: %d bytes", len(failed.Message()))
			}
		})
	}
	d.requireUnharmed()
}

func TestAttacksByHeaderChangeNothing(t *testing.T) {
	t.Parallel()
	d := newAttackSetup(t)
	for name, header := range map[string][]string{
		"a token for Vault":        {"x-vault-token", "root"},
		"a namespace for Vault":    {"x-vault-namespace", "admin"},
		"a wrapping for Vault":     {"x-vault-wrap-ttl", "60"},
		"another user":             {"x-forwarded-user", "root", "uid", "0"},
		"an authorization":         {"authorization", "Bearer root"},
		"a host":                   {"host", "evil.example"},
		"a trace that is none":     {"traceparent", "00-zz-zz-zz"},
		"a trace of 8 kB":          {"traceparent", strings.Repeat("0", 8000)},
		"many baggage entries":     {"baggage", strings.Repeat("a=b,", 1000)},
		"a binary header":          {"x-bin", "\x00\xff"},
		"a header many times over": slices.Repeat([]string{"x-a", "b"}, 100),
		"a message's own encoding": {"grpc-accept-encoding", "gzip,deflate,zstd,../x"},
	} {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			ctx := metadata.AppendToOutgoingContext(t.Context(), header...)
			answer, err := d.Resolve(ctx, &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/app/key", MaxAge: readVaultNow})
			if err != nil || answer.GetValue() != d.value {
				t.Errorf("%v, %v", answer, err)
			}
		})
	}
	for _, one := range d.proxy.seen() {
		for name := range one.header {
			if slices.Contains([]string{"X-Vault-Wrap-Ttl", "X-Vault-Namespace", "Authorization", "X-Forwarded-User", "Baggage", "X-A"}, name) {
				t.Errorf("the caller's header %s has reached Vault", name)
			}
		}
	}
	d.requireUnharmed()
	t.Run("an authority of another host", func(t *testing.T) {
		d := d.in(t)
		_, _ = d.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/app/key"}, grpc.CallAuthority("evil.example:443"))
		d.requireUnharmed()
	})
}

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
			":path", "/secretsidecar.v1.SecretService/Resolve", "content-type", "application/grpc", "te", "trailers"}, more...)
		for i := 0; i+1 < len(fields); i += 2 {
			_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return block.Bytes()
	}
	open := func(f *http2.Framer, stream uint32, block []byte) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true})
	}
	for name, sent := range map[string]string{
		"HTTP/1.1":                   "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"HTTP/1.1 with an upgrade":   "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"HTTP/1.1 POST of a request": "POST /secretsidecar.v1.SecretService/Resolve HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\x00\x00\x00\x00\x00",
		"HTTP/0.9":                   "GET /\r\n",
		"a TLS hello":                "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 500),
		"SSH":                        "SSH-2.0-x\r\n",
		"zeros":                      strings.Repeat("\x00", 4096),
		"half a preface":             preface[:10],
		"a preface twice":            preface + preface,
		"a preface and nothing":      preface,
		"a preface and noise":        preface + strings.Repeat("noise", 2000),
		"a frame of 16 MB announced": preface + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",
		"a frame of an unknown type": frames(func(f *http2.Framer) { settings(f); _ = f.WriteRawFrame(0xee, 0, 0, []byte("x")) }),
		"data without a stream":      frames(func(f *http2.Framer) { settings(f); _ = f.WriteData(1, true, []byte("x")) }),
		"a stream of the server's":   frames(func(f *http2.Framer) { settings(f); open(f, 2, headers()) }),
		"stream 0":                   frames(func(f *http2.Framer) { settings(f); f.AllowIllegalWrites = true; open(f, 0, headers()) }),
		"a window update of 0":       frames(func(f *http2.Framer) { settings(f); f.AllowIllegalWrites = true; _ = f.WriteWindowUpdate(0, 0) }),
		"an overflowing window":      frames(func(f *http2.Framer) { settings(f); _ = f.WriteWindowUpdate(0, 1<<31-1) }),
		"a push promise": frames(func(f *http2.Framer) {
			settings(f)
			_ = f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: headers(), EndHeaders: true})
		}),
		"headers that never end": frames(func(f *http2.Framer) {
			settings(f)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers()})
		}),
		"headers that are no HPACK": frames(func(f *http2.Framer) { settings(f); open(f, 1, bytes.Repeat([]byte{0xff}, 500)) }),
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
		"a timeout that is none": frames(func(f *http2.Framer) { settings(f); open(f, 1, headers("grpc-timeout", "99999999999H")) }),
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
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: len(first) == len(block)})
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
	eventually(t, "clients that never finish the handshake are dropped", func() bool { return d.descriptors() < before+clients/10 })
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
