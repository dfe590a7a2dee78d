package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

const (
	listedUID   = 41001
	unlistedUID = 41009
	// inTime is when a listed caller's cached answer has to be there while others attack. It needs a
	// thousandth of it.
	inTime = 5 * time.Second
	// attackFor is how long one connection of an attacker is written to at most.
	attackFor = 3 * time.Second
)

// mostResident is what the process may take under attack: what a pod of 256Mi has. The race detector
// takes several times as much.
func mostResident() int64 {
	if withRaceDetector {
		return 5 * 256 << 20
	}
	return 256 << 20
}

// door is a sidecar whose rules list one user, under attack by users of its socket.
type door struct {
	*sandbox
	sidecar *sidecar
	value   string
}

func newDoor(t *testing.T, more string) *door {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be other users")
	}
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	d := &door{sandbox: s, value: s.newSecret()}
	s.writeSecret(v, "secret/data/app", "key", d.value)
	for _, directory := range []string{s.dir, s.subdirectory(filepath.Base(filepath.Dir(s.socket())))} {
		s.must(os.Chmod(directory, 0o755)) // #nosec G302 -- every user of this test has to reach the socket
	}
	text := strings.Replace(s.configText(s.defaultLogin(v).connection("prod", v.Address)),
		s.socket(), s.socket()+`, mode: "0666"`, 1)
	text += fmt.Sprintf("callers: [{uid: %d}, {uid: %d}]\n", listedUID, listedUID+1) + more
	command := exec.Command(binary, "serve", "--config", s.write("config.yaml", text))
	command.Env = s.environ("GOMEMLIMIT=241591910") // 90 % of 256Mi, as in a pod
	log := &output{}
	command.Stderr = log
	d.sidecar = s.launch(command, log)
	d.sidecar.awaitHealth("")
	return d
}

// dialAs opens a connection as another user. The thread that has become that user ends with it.
func (s *sandbox) dialAs(uid int) (net.Conn, error) {
	type dialled struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialled)
	go func() { // ends at once
		runtime.LockOSThread() // never unlocked: the thread is of no other use
		_, _, _ = unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		_, _, first := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(uid), uintptr(uid), uintptr(uid))
		_, _, second := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		if first != 0 || second != 0 {
			done <- dialled{nil, fmt.Errorf("become uid %d: %w", uid, max(first, second))}
			return
		}
		conn, err := net.Dial("unix", s.socket())
		done <- dialled{conn, err}
	}()
	result := <-done
	return result.conn, result.err
}

// clientAs is a channel of another user's.
func (s *sandbox) clientAs(uid int) *grpc.ClientConn {
	s.t.Helper()
	channel, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(connectParams),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return s.dialAs(uid) }))
	s.must(err)
	s.t.Cleanup(func() { _ = channel.Close() })
	return channel
}

// attacker is a bare HTTP/2 connection of another user's.
type attacker struct {
	net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	next   uint32
	gone   atomic.Bool // the sidecar has hung up
}

// attack opens so many connections, each of which has sent its preface and its settings.
func (s *sandbox) attack(uid, connections int) []*attacker {
	s.t.Helper()
	var all []*attacker
	for range connections {
		conn, err := s.dialAs(uid)
		s.must(err)
		a := &attacker{Conn: conn, framer: http2.NewFramer(conn, conn), next: 1}
		a.hpack = hpack.NewEncoder(&a.block)
		// Who is slowed down is read from slowly, and the attack goes on elsewhere.
		s.must(conn.SetWriteDeadline(time.Now().Add(attackFor)))
		_, _ = io.WriteString(conn, http2.ClientPreface)
		_ = a.framer.WriteSettings()
		go func() { // ends when the connection does, which the test's end sees to
			_, _ = io.Copy(io.Discard, conn)
			a.gone.Store(true)
		}()
		s.t.Cleanup(func() { _ = conn.Close() })
		all = append(all, a)
	}
	return all
}

// open begins a stream and sends no message.
func (a *attacker) open(method string, more ...string) error {
	a.block.Reset()
	fields := append([]string{":method", "POST", ":scheme", "http", ":authority", "x", ":path", method,
		"content-type", "application/grpc", "te", "trailers"}, more...)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = a.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	const most = 16 << 10
	block := a.block.Bytes()
	first := block[:min(most, len(block))]
	err := a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: a.next, BlockFragment: first,
		EndHeaders: len(first) == len(block)})
	for rest := block[len(first):]; err == nil && len(rest) > 0; {
		part := rest[:min(most, len(rest))]
		rest = rest[len(part):]
		err = a.framer.WriteContinuation(a.next, len(rest) == 0, part)
	}
	a.next += 2
	return err
}

// watchHealth begins a health watch of the process.
func (a *attacker) watchHealth(more ...string) error {
	err := a.open(healthpb.Health_Watch_FullMethodName, more...)
	if err != nil {
		return err
	}
	return a.framer.WriteData(a.next-2, true, []byte{0, 0, 0, 0, 0})
}

// still counts the connections that the sidecar keeps.
func still(all []*attacker) int {
	n := 0
	for _, a := range all {
		if !a.gone.Load() {
			n++
		}
	}
	return n
}

// under runs the attack, and meanwhile asks as a listed caller, over an open channel and over new
// ones, and as the pod's probe does. Then it looks at the memory.
func (d *door) under(attack func()) {
	d.t.Helper()
	worker := d.clientAs(listedUID)
	d.asks(worker)
	ctx, end := context.WithCancel(d.t.Context())
	var attacking sync.WaitGroup
	attacking.Go(func() { attack(); end() })
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for rounds := 0; rounds < 3 || ctx.Err() == nil; rounds++ {
		<-tick.C
		d.asks(worker)
		newcomer := d.clientAs(listedUID)
		d.asks(newcomer)
		_ = newcomer.Close()
		if done := d.run("health"); done.code != 0 {
			d.t.Errorf("the probe ends with %d: %s", done.code, done.stderr)
		}
	}
	attacking.Wait()
	took := d.sidecar.memory("VmHWM")
	d.t.Logf("the sidecar has taken %d MB", took>>20)
	if took > mostResident() {
		d.t.Errorf("the sidecar has taken %d MB, want %d at most", took>>20, mostResident()>>20)
	}
}

func (d *door) asks(channel *grpc.ClientConn) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), inTime)
	defer cancel()
	answer, err := secretsidecarv1.NewSecretServiceClient(channel).Resolve(ctx,
		&secretsidecarv1.ResolveRequest{Path: "secret/data/app/key"}, grpc.WaitForReady(true))
	if err != nil || answer.GetValue() != d.value {
		d.t.Fatalf("a listed caller is answered %v", err)
	}
}

// users are those whose attacks are tried: one that no rule lists, and one that a rule does.
var users = map[string]int{"unlisted": unlistedUID, "listed": listedUID + 1}

func TestAnUnlistedCallerCannotHoldMemoryWithHeaders(t *testing.T) {
	t.Parallel()
	for name, uid := range users {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, "")
			long := strings.Repeat("x", 15<<20)
			d.under(func() {
				for range 10 {
					_ = d.attack(uid, 1)[0].watchHealth("x-long", long) // the sidecar hangs up
				}
				for _, a := range d.attack(uid, 8) { // just within the limit, as many as may be
					for i := 0; i < 1000 && a.watchHealth("x-long", fmt.Sprint(i, long[:7<<10])) == nil; i++ {
					}
				}
			})
		})
	}
}

func TestAnUnlistedCallerCannotTakeTheConnectionsOfOthers(t *testing.T) {
	t.Parallel()
	for name, uid := range users {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, "")
			const descriptors = 1024
			d.must(unix.Prlimit(d.sidecar.command.Process.Pid, unix.RLIMIT_NOFILE,
				&unix.Rlimit{Cur: descriptors, Max: descriptors}, nil))
			var silent []*attacker
			d.under(func() { silent = d.attack(uid, 1100) })
			most := map[int]int{unlistedUID: 4, listedUID + 1: descriptors / 2}[uid]
			eventually(t, "the connections over the limit are closed", func() bool { return still(silent) <= most })
			d.under(func() {})
		})
	}
}

func TestAnUnlistedCallerCannotTakeTheMemoryWithStreams(t *testing.T) {
	t.Parallel()
	for name, uid := range users {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, "")
			d.under(func() {
				for _, a := range d.attack(uid, 40) {
					for range 500 {
						if a.watchHealth() != nil || a.open(secretsidecarv1.SecretService_Resolve_FullMethodName) != nil {
							break // the sidecar has hung up
						}
					}
				}
			})
		})
	}
}

func TestAnUnlistedCallerCannotFillTheAuditLog(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "audit: {file: audit.log}\n")
	item := &secretsidecarv1.ResolveRequest{Path: strings.Repeat("\x01", 1024)}
	batch := &secretsidecarv1.BatchResolveRequest{
		Requests: slices.Repeat([]*secretsidecarv1.ResolveRequest{item}, 256)}
	d.under(func() {
		attacker := secretsidecarv1.NewSecretServiceClient(d.clientAs(unlistedUID))
		for range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err := attacker.BatchResolve(ctx, batch)
			cancel()
			if got := requireFailure(t, d, err, callerNotAllowed); !strings.Contains(got.Message(), "callers") {
				t.Errorf("the refusal does not name the setting: %s", got.Message())
			}
		}
	})
	refused := 0
	for _, line := range d.auditLines("audit.log") {
		if line["uid"] == float64(unlistedUID) {
			refused++
			if line["outcome"] != "CALLER_NOT_ALLOWED" || line["path"] != "" {
				t.Errorf("the line of a refused caller is %v", line)
			}
		}
	}
	if refused == 0 || refused > 16+int(patience/time.Second) {
		t.Errorf("%d lines tell of the refused caller", refused)
	}
}

func TestAnUnlistedCallerCannotKeepOthersFromTheirAnswers(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "")
	d.under(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var flood sync.WaitGroup
		for range 8 {
			flood.Go(func() {
				channel := d.clientAs(unlistedUID)
				for ctx.Err() == nil {
					_, _ = healthpb.NewHealthClient(channel).Check(ctx, &healthpb.HealthCheckRequest{})
					_, _ = secretsidecarv1.NewSecretServiceClient(channel).ListConnections(ctx, &secretsidecarv1.ListConnectionsRequest{})
				}
			})
			flood.Go(func() {
				for ctx.Err() == nil {
					if conn, err := d.dialAs(unlistedUID); err == nil {
						_ = conn.Close()
					}
				}
			})
		}
		flood.Wait()
	})
}

func TestAnUnlistedCallerCannotLearnWhichConnectionsThereAre(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "")
	health := healthpb.NewHealthClient(d.clientAs(unlistedUID))
	listed, err := health.List(t.Context(), &healthpb.HealthListRequest{})
	if err != nil || strings.Contains(listed.String(), "prod") {
		t.Errorf("List: %v, %v", listed, err)
	}
	for _, name := range []string{"prod", "absent"} {
		_, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "connection/" + name})
		requireFailure(t, d, err, callerNotAllowed)
	}
	for _, name := range []string{"", "liveness"} {
		if answer, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name}); err != nil || answer.GetStatus() != serving {
			t.Errorf("health of %q: %v, %v", name, answer, err)
		}
	}
}

func TestAnUnlistedCallerIsToldSoByGrpcurlToo(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "")
	curl := exec.Command(foreignClient(t, "GRPCURL"), "-plaintext", "-unix", d.socket(), "list") // #nosec G204 -- named by the Makefile
	curl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: unlistedUID, Gid: unlistedUID}}
	curl.Dir = "/"
	if done := d.execute(curl); done.code == 0 || !strings.Contains(done.stderr, "no rule lets uid 41009") {
		t.Errorf("grpcurl ends with %d: %s", done.code, done.stderr)
	}
}

func TestACallerOverItsLimitOfConnectionsIsToldSo(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "")
	d.must(unix.Prlimit(d.sidecar.command.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 128, Max: 128}, nil))
	d.attack(listedUID+1, 100) // 48 of 96 descriptors, and four more that are told
	channel := d.clientAs(listedUID + 1)
	eventually(t, "the caller is told", func() bool {
		_, err := secretsidecarv1.NewSecretServiceClient(channel).ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
		if err == nil {
			t.Fatal("it is answered")
		}
		return status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "too many connections")
	})
	d.under(func() {})
}
