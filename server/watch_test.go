package server_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/internal/redistest"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// startWatched serves one connection, whose watched secrets are read so often.
func startWatched(t testing.TB, v *frontedVault, every time.Duration) *sidecar {
	t.Helper()
	s, err := server.New(server.Options{DrainTimeout: drainTimeout})
	if err != nil {
		t.Fatal(err)
	}
	s.SetWatchEvery(every)
	if err := s.Apply(server.Settings{Connections: []server.Connection{v.connection("prod")}}); err != nil {
		t.Fatal(err)
	}
	return serve(t, s)
}

// watching is an open stream of Watch.
type watching struct {
	secretsidecarv1.SecretService_WatchClient
	cancel context.CancelFunc
}

func (s *sidecar) watch(t testing.TB, paths ...string) *watching {
	t.Helper()
	request := &secretsidecarv1.WatchRequest{}
	for _, path := range paths {
		request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{Path: path})
	}
	return s.watchFor(t, request)
}

func (s *sidecar) watchFor(t testing.TB, request *secretsidecarv1.WatchRequest) *watching {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	stream, err := s.Watch(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	return &watching{stream, cancel}
}

// next returns the next state as "INDEX VALUE", with the reason in the place of the value where
// there is none, and " stale" at its end.
func (w *watching) next(t testing.TB) string {
	t.Helper()
	state, err := w.Recv()
	if err != nil {
		t.Fatalf("the watch ended: %v", err)
	}
	text := string(rune('0'+state.GetIndex())) + " " + state.GetSecret().GetValue() + state.GetError().GetReason()
	if state.GetSecret().GetSource() == secretsidecarv1.Source_SOURCE_STALE {
		text += " stale"
	}
	return text
}

func (w *watching) wants(t testing.TB, states ...string) {
	t.Helper()
	for _, want := range states {
		if got := w.next(t); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// never is so seldom that no test sees a poll.
const never = 24 * time.Hour

func TestAWatchSendsThePresentStateOfEachAndThenEachChange(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	s := startWatched(t, v, 20*time.Millisecond)
	w := s.watch(t, "secret/data/a/k")
	w.wants(t, "0 one")
	for _, value := range []string{"two", "three"} {
		v.write(t, "secret/data/a", map[string]any{"k": value})
		w.wants(t, "0 "+value)
	}
	v.write(t, "secret/data/a", map[string]any{"other": "x"})
	w.wants(t, "0 KEY_NOT_FOUND")
	v.write(t, "secret/data/a", map[string]any{"k": ""})
	w.wants(t, "0 ")
}

func TestAWatchHasAnOutcomeForEachItem(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one", "l": "two"})
	s := startWatched(t, v, never)
	w := s.watch(t, "secret/data/a/k", "secret/data/none/k", "no reference", "secret/data/a/l")
	states := map[string]bool{}
	for range 4 {
		states[w.next(t)] = true
	}
	for _, want := range []string{"0 one", "1 SECRET_NOT_FOUND", "2 INVALID_PATH", "3 two"} {
		if !states[want] {
			t.Errorf("no state %q in %v", want, states)
		}
	}
}

func TestAnInvalidationIsSeenByAWatchAtOnce(t *testing.T) {
	redis := redistest.Mini(t)
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	settings := server.Settings{Connections: []server.Connection{v.connection("prod")}}
	here, there := startInFleet(t, redis, settings), startInFleet(t, redis, settings)
	watches := []*watching{here.watch(t, "secret/data/a/k"), there.watch(t, "secret/data/a/k")}
	for _, w := range watches {
		w.wants(t, "0 one")
	}
	v.write(t, "secret/data/a", map[string]any{"k": "two"})
	here.invalidate(t, &secretsidecarv1.InvalidateRequest{Path: "secret/data/a/k", Fleet: true})
	for _, w := range watches {
		w.wants(t, "0 two")
	}
}

// Also when a read was under way that began before the invalidation.
func TestAWatchThatBeginsAfterAnInvalidationNeverShowsWhatWasReadBefore(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	s := startWatched(t, v, never)
	first := s.watch(t, "secret/data/a/k")
	first.wants(t, "0 one")
	v.write(t, "secret/data/a", map[string]any{"k": "two"})
	s.invalidate(t, &secretsidecarv1.InvalidateRequest{})
	s.watch(t, "secret/data/a/k").wants(t, "0 two")
	first.wants(t, "0 two")
}

func TestAWatchMarksWhatIsStaleAndRecovers(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	s := startWatched(t, v, 20*time.Millisecond)
	w := s.watch(t, "secret/data/a/k")
	w.wants(t, "0 one")
	v.answerInstead(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	w.wants(t, "0 one stale")
	v.write(t, "secret/data/a", map[string]any{"k": "two"})
	v.answerInstead(nil)
	w.wants(t, "0 two")
}

func TestManyWatchersOfASecretCostOneRead(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	s := startWatched(t, v, never)
	var all []*watching
	for i := range 20 {
		w := s.over(t, i/watchesOnOne).watch(t, "secret/data/a/k", "secret/data/a/k")
		w.next(t)
		w.next(t)
		all = append(all, w)
	}
	if reads := v.count("GET /v1/secret/data/a"); reads != 1 {
		t.Errorf("%d reads for 20 watches, want 1", reads)
	}
	v.write(t, "secret/data/a", map[string]any{"k": "two"})
	s.invalidate(t, &secretsidecarv1.InvalidateRequest{})
	for _, w := range all {
		w.next(t)
		w.next(t)
	}
	if reads := v.count("GET /v1/secret/data/a"); reads != 2 {
		t.Errorf("%d reads after a change, want 2", reads)
	}
}

func TestASlowWatcherGetsTheLatestStateAndNoBacklog(t *testing.T) {
	v := newVault(t)
	const changes = 40
	large := func(i int) string { return strings.Repeat("x", 256<<10) + string(rune('0'+i)) }
	v.write(t, "secret/data/a", map[string]any{"k": large(0)})
	s := startWatched(t, v, never)
	w := s.watch(t, "secret/data/a/k")
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	for i := range changes { // nobody receives
		v.write(t, "secret/data/a", map[string]any{"k": large(i + 1)})
		s.invalidate(t, &secretsidecarv1.InvalidateRequest{})
		s.resolve(t, "secret/data/a/k")
	}
	received := 0
	for latest := ""; latest != large(changes); received++ {
		state, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		latest = state.GetSecret().GetValue()
	}
	if received == changes {
		t.Errorf("received every one of %d changes", received)
	}
}

func TestAWatchKeepsTheRulesOfResolveThroughReloads(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	settings := server.Settings{Connections: []server.Connection{v.connection("prod")}}
	s := start(t, settings)
	w := s.watch(t, "secret/data/a/k")
	w.wants(t, "0 one")

	refused := settings
	refused.Callers = []server.CallerRule{}
	apply(t, s, refused)
	w.wants(t, "0 CALLER_NOT_ALLOWED")

	gone := settings
	gone.Connections = nil
	apply(t, s, gone)
	w.wants(t, "0 CONNECTION_REQUIRED")

	apply(t, s, settings)
	for state := ""; state != "0 one"; { // it logs in first
		state = w.next(t)
	}
}

func apply(t testing.TB, s *sidecar, settings server.Settings) {
	t.Helper()
	if err := s.server.Apply(settings); err != nil {
		t.Fatal(err)
	}
}

func TestAWatchIsRefusedWhereItAsksForTooMuch(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	s := startWatched(t, v, never)
	for _, count := range []int{0, 257} {
		_, err := s.watchFor(t, &secretsidecarv1.WatchRequest{Requests: batchOf(count, "secret/data/a/k").GetRequests()}).Recv()
		wantProblem(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	}
	var all []*watching
	for i := range 64 {
		w := s.over(t, i/watchesOnOne).watch(t, "secret/data/a/k")
		w.wants(t, "0 one")
		all = append(all, w)
	}
	for what, connection := range map[string]int{"of one connection": 0, "of the caller": 4} {
		_, err := s.over(t, connection).watch(t, "secret/data/a/k").Recv()
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one more watch %s: %v", what, err)
		}
	}
	all[0].cancel()
	eventually(t, "one that ends makes room", func() bool {
		_, err := s.watch(t, "secret/data/a/k").Recv()
		return err == nil
	})
}

// watchesOnOne is how many streams without an end a connection may have.
const watchesOnOne = 16

// over returns the sidecar as a client asks over one of several connections; 0 is the first.
func (s *sidecar) over(t testing.TB, connection int) *sidecar {
	t.Helper()
	for len(s.more) < connection {
		s.more = append(s.more, secretsidecarv1.NewSecretServiceClient(dial(t, s.socket)))
	}
	if connection == 0 {
		return s
	}
	return &sidecar{SecretServiceClient: s.more[connection-1], server: s.server, socket: s.socket}
}

func TestAWatchTakesARuleForTheMethodWatchAndReadsWhatTheRuleAllows(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	v.write(t, "secret/data/b", map[string]any{"k": "two"})
	prod, theirs := v.projectConnection("prod", "p1"), v.projectConnection("theirs", "p2")
	prod.Aliases = []string{"old-name"}
	settings := server.Settings{Connections: []server.Connection{prod, theirs}}
	request := func(connection, project, path string) *secretsidecarv1.ResolveRequest {
		return &secretsidecarv1.ResolveRequest{Connection: connection, ProjectId: project, Path: path}
	}
	requests := []*secretsidecarv1.ResolveRequest{
		request("old-name", "p1", "secret/data/a/k"), request("prod", "p1", "secret/data/b/k"),
		request("prod", "", "secret/data/a/k"), request("theirs", "p1", "secret/data/a/k"),
		request("prod", "p2", "secret/data/a/k"),
	}
	settings.Callers = us(func(r *server.CallerRule) {
		r.Projects, r.Methods = []string{"p1"}, []string{"Watch"}
		r.Paths = pathPatterns(t, "secret/data/a/k")
	})
	s := start(t, settings)
	w := s.watchFor(t, &secretsidecarv1.WatchRequest{Requests: requests})
	states := map[string]bool{}
	for range requests {
		states[w.next(t)] = true
	}
	for _, want := range []string{
		"0 one", "1 CALLER_NOT_ALLOWED", "2 PROJECT_REQUIRED", "3 CONNECTION_NOT_FOUND",
		"4 PROJECT_NOT_ALLOWED",
	} {
		if !states[want] {
			t.Errorf("no state %q in %v", want, states)
		}
	}

	settings.Callers = us(func(r *server.CallerRule) { r.Methods = []string{"Resolve"} })
	_, err := start(t, settings).watchFor(t, &secretsidecarv1.WatchRequest{Requests: requests}).Recv()
	wantProblem(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
}

func TestAWatchEndsWithTheSidecar(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	s := startWatched(t, v, never)
	w := s.watch(t, "secret/data/a/k")
	w.wants(t, "0 one")
	s.stop()
	_, err := w.Recv()
	wantProblem(t, err, codes.Unavailable, "SHUTTING_DOWN")
}

func TestEachStateOfAWatchIsWrittenToTheAuditLogAndCounted(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	file := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(file, audit.Options{Required: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	s, err := server.New(server.Options{DrainTimeout: drainTimeout, Audit: log})
	if err != nil {
		t.Fatal(err)
	}
	s.SetWatchEvery(never)
	prod := v.connection("prod")
	prod.Aliases = []string{"old-name"}
	if err := s.Apply(server.Settings{Connections: []server.Connection{prod}}); err != nil {
		t.Fatal(err)
	}
	running := serve(t, s)
	w := running.watchFor(t, &secretsidecarv1.WatchRequest{Requests: []*secretsidecarv1.ResolveRequest{
		{Connection: "old-name", Path: "secret/data/a/k"},
	}})
	w.wants(t, "0 one")
	v.write(t, "secret/data/a", map[string]any{"other": "x"})
	running.invalidate(t, &secretsidecarv1.InvalidateRequest{})
	w.wants(t, "0 KEY_NOT_FOUND")

	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, outcome := range []string{"ok", "KEY_NOT_FOUND"} {
		isWritten := slices.ContainsFunc(strings.Split(string(lines), "\n"), func(line string) bool {
			return strings.Contains(line, `"method":"Watch"`) &&
				strings.Contains(line, `"connection":"prod"`) &&
				strings.Contains(line, `"outcome":"`+outcome+`"`)
		})
		if !isWritten {
			t.Errorf("no line of a watch with the outcome %s in\n%s", outcome, lines)
		}
	}
	listed, err := running.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	counted := listed.GetConnections()[0].GetResolves()
	if counted.GetVault() != 1 || counted.GetErrors() != 1 {
		t.Errorf("counted are %v", counted)
	}
}
