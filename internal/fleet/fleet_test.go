package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// member is one sidecar of a fleet, with what it was told to drop.
type member struct {
	*Fleet
	stop func()

	mu      sync.Mutex
	dropped []Invalidation // guarded by mu
	all     int            // guarded by mu: how often everything was dropped
}

func (m *member) Drop(_ context.Context, what Invalidation) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropped = append(m.dropped, what)
	return what.Path != "malformed"
}

func (m *member) DropAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all++
}

func (m *member) has(what Invalidation) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.dropped, what)
}

func (m *member) drops() (one, all int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.dropped), m.all
}

// open makes a Fleet that ends with the test.
func open(t testing.TB, config Config) *Fleet {
	t.Helper()
	f, err := Open(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// join makes a sidecar that follows the stream until the test or stop ends it.
func join(t testing.TB, config Config) *member {
	t.Helper()
	m := &member{Fleet: open(t, config)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { m.Run(ctx, m); close(done) }()
	m.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(m.stop)
	return m
}

// connected waits until the member follows the stream.
func (m *member) connected(t testing.TB) *member {
	t.Helper()
	eventually(t, "the connection", func() bool { return m.Stats().Connected })
	return m
}

func at(s *redistest.Server) Config { return Config{URL: redact.New(s.URL())} }

func tell(t testing.TB, f *Fleet, what Invalidation) string {
	t.Helper()
	id, err := f.Tell(t.Context(), what)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// eventually waits until holds says so, on a busy machine too.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

var secretA = Invalidation{Connection: "prod", Path: "secret/data/a/key"}

func TestWhatOneSidecarTellsAllOthersDropAndItselfDoesNot(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		one, two, three := join(t, at(s)).connected(t), join(t, at(s)).connected(t), join(t, at(s)).connected(t)
		for _, what := range []Invalidation{
			secretA, {Path: "secret/data/team/"}, {Connection: "prod", RenewLogin: true}, {},
		} {
			tell(t, one.Fleet, what)
			for _, other := range []*member{two, three} {
				eventually(t, fmt.Sprintf("%+v is dropped", what), func() bool { return other.has(what) })
			}
		}
		eventually(t, "the sidecar has read its own entries", func() bool { return one.Stats().Own == 4 })
		if drops, _ := one.drops(); drops != 0 {
			t.Errorf("it has dropped %d by its own entries", drops)
		}
		if got := two.Stats(); got.Applied != 4 || got.Malformed != 0 || got.Resyncs != 0 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestASidecarThatStartsDropsNothingOfWhatWasToldBefore(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		teller := open(t, at(s))
		tell(t, teller, secretA)
		late := join(t, at(s)).connected(t)
		tell(t, teller, Invalidation{Connection: "prod"})
		eventually(t, "what is told later", func() bool { return late.has(Invalidation{Connection: "prod"}) })
		if late.has(secretA) {
			t.Error("it has dropped what was told before it started")
		}
	})
}

// cutOff ends every connection to the server but the client's own, and lets nobody in until the
// test calls the result.
func cutOff(t testing.TB, client *redis.Client) (letIn func()) {
	t.Helper()
	ctx := t.Context()
	if err := client.Do(ctx, "ACL", "SETUSER", "default", "off").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := client.Do(ctx, "ACL", "SETUSER", "default", "on").Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASidecarThatWasAwayReadsOnFromWhereItWas(t *testing.T) {
	s := redistest.Real(t)
	client := s.Client(t)
	away := join(t, at(s)).connected(t)
	tell(t, open(t, at(s)), secretA)
	eventually(t, "the first", func() bool { return away.has(secretA) })

	letIn := cutOff(t, client)
	eventually(t, "it notices", func() bool { return !away.Stats().Connected })
	missed := appendRaw(t, client, "prod", "secret/data/missed/key")
	letIn()
	eventually(t, "it drops what it has missed", func() bool { return away.has(missed) })
	if _, all := away.drops(); all != 1 {
		t.Errorf("it has dropped everything %d times, want once, at its start", all)
	}
}

// appendRaw writes an entry without a Fleet.
func appendRaw(t testing.TB, client *redis.Client, connection, path string) Invalidation {
	t.Helper()
	what := Invalidation{Connection: connection, Path: path}
	err := client.XAdd(t.Context(), &redis.XAddArgs{
		Stream: DefaultStream, Values: entry{what: what, origin: "another"}.fields(),
	}).Err()
	if err != nil {
		t.Fatal(err)
	}
	return what
}

func TestASidecarThatWasAwayForLongerThanTheStreamIsKeptDropsEverything(t *testing.T) {
	s := redistest.Real(t)
	client := s.Client(t)
	away := join(t, at(s)).connected(t)
	letIn := cutOff(t, client)
	eventually(t, "it notices", func() bool { return !away.Stats().Connected })
	missed := appendRaw(t, client, "prod", "secret/data/missed/key")
	kept := appendRaw(t, client, "prod", "secret/data/kept/key")
	if err := client.XTrimMaxLen(t.Context(), DefaultStream, 1).Err(); err != nil {
		t.Fatal(err)
	}
	letIn()
	eventually(t, "it drops everything", func() bool { _, all := away.drops(); return all == 2 })
	if away.has(missed) || away.has(kept) {
		t.Error("it drops one by one what everything covers")
	}
	if got := away.Stats().Resyncs; got != 1 {
		t.Errorf("%d resyncs, want 1", got)
	}
	later := appendRaw(t, client, "prod", "secret/data/later/key")
	eventually(t, "it reads on", func() bool { return away.has(later) })
}

func TestARedisThatComesBackEmptyMakesEverybodyDropEverything(t *testing.T) {
	s := redistest.Real(t)
	m := join(t, at(s)).connected(t)
	s.Stop()
	eventually(t, "it notices", func() bool { return !m.Stats().Connected })
	if _, err := m.Tell(t.Context(), secretA); err == nil {
		t.Error("telling a Redis that is away fails, and it did not")
	}
	s.Start(t)
	eventually(t, "everything is dropped", func() bool { _, all := m.drops(); return all == 2 })
	m.connected(t)
	what := appendRaw(t, s.Client(t), "prod", "secret/data/b/key")
	eventually(t, "it reads on", func() bool { return m.has(what) })
}

// A stream that begins again may have ids below the last one: its server's clock was set back.
func TestAStreamThatIsDeletedWhileItIsReadIsNoticed(t *testing.T) {
	s := redistest.Real(t)
	client := s.Client(t)
	m := join(t, at(s)).connected(t)
	if err := client.Del(t.Context(), DefaultStream).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.XAdd(t.Context(), &redis.XAddArgs{
		Stream: DefaultStream, ID: "1-1", Values: entry{what: secretA, origin: "another"}.fields(),
	}).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everything is dropped", func() bool { _, all := m.drops(); return all == 2 })
}

func TestAFrozenRedisRefusesToBeToldAndIsReadOnAfterwards(t *testing.T) {
	s := redistest.Real(t)
	m, teller := join(t, at(s)).connected(t), open(t, at(s))
	tell(t, teller, secretA)
	s.Freeze(t)
	_, err := teller.Tell(t.Context(), Invalidation{Connection: "frozen"})
	eventually(t, "it notices", func() bool { return !m.Stats().Connected })
	s.Thaw(t)
	if err == nil {
		t.Error("telling a frozen Redis fails, and it did not")
	}
	m.connected(t)
	what := Invalidation{Connection: "thawed"}
	tell(t, teller, what)
	eventually(t, "it reads on", func() bool { return m.has(what) })
	if got := m.Stats().Resyncs; got != 0 {
		t.Errorf("%d resyncs for a server that is the same", got)
	}
}

func TestForgedAndMalformedEntriesAreCountedAndIgnored(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		m, client := join(t, at(s)).connected(t), s.Client(t)
		forged := []map[string]any{
			{"nothing": "known"},
			{fieldConnection: "prod"},
			{fieldPath: "secret/data/a/key"},
			{fieldConnection: "prod", fieldPath: string(make([]byte, maxPathBytes+1))},
			{fieldConnection: string(make([]byte, maxNameBytes+1)), fieldPath: ""},
			{fieldConnection: "prod", fieldPath: "\xff"},
			{fieldConnection: "prod", fieldPath: "", fieldRenewLogin: "perhaps"},
			{fieldConnection: "prod", fieldPath: "malformed"}, // by the receiver's judgement
		}
		for _, values := range forged {
			if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: DefaultStream, Values: values}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all are counted", func() bool { return m.Stats().Malformed == uint64(len(forged)) })
		good := appendRaw(t, client, "prod", "secret/data/a/key")
		eventually(t, "the next good one is dropped", func() bool { return m.has(good) })
	})
}

func TestAFloodIsLimitedAndWhatWaitsIsSentOnce(t *testing.T) {
	f := open(t, Config{URL: redact.New("redis://127.0.0.1:1")})
	f.sending = true // nothing is taken away
	first, err := f.join(secretA)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 * tellBurst {
		if same, err := f.join(secretA); err != nil || same != first {
			t.Fatalf("an equal one that waits is not shared: %v", err)
		}
	}
	refused := false
	for i := range 3 * tellBurst {
		if _, err := f.join(Invalidation{Connection: fmt.Sprint(i)}); err != nil {
			refused = true
		}
	}
	if !refused || f.Stats().Limited == 0 {
		t.Error("a flood is not limited")
	}
}

func TestOneThatIsBeingSentIsNotSharedAnyMore(t *testing.T) {
	f := open(t, Config{URL: redact.New("redis://127.0.0.1:1")})
	f.sending = true
	sent, err := f.join(secretA)
	if err != nil {
		t.Fatal(err)
	}
	f.take()
	later, err := f.join(secretA)
	if err != nil || later == sent {
		t.Errorf("got %v: who comes after the sending shares what was sent before", err)
	}
}

func TestManyPrefixesThatComeTogetherBecomeTheirConnection(t *testing.T) {
	var flood []Invalidation
	for i := range maxPrefixes + 1 {
		flood = append(flood, Invalidation{Connection: "a", Path: fmt.Sprintf("secret/data/%d/", i)})
	}
	flood = append(flood, secretA, secretA, Invalidation{Connection: "a", Path: "secret/data/x/k", RenewLogin: true})
	got := coalesce(flood)
	want := []Invalidation{secretA, {Connection: "a", RenewLogin: true}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWaitCountsTheLivingAndThoseThatHaveDropped(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		members := []*member{join(t, at(s)).connected(t), join(t, at(s)).connected(t), join(t, at(s)).connected(t)}
		teller := open(t, at(s))
		told := 0
		got, err := teller.Wait(t.Context(), tell(t, teller, secretA), func(Progress) { told++ })
		if err != nil || got != (Progress{Living: 3, Acknowledged: 3}) || told == 0 {
			t.Errorf("got %+v, %v, told %d times", got, err, told)
		}
		for _, m := range members {
			if !m.has(secretA) {
				t.Error("a sidecar has acknowledged what it has not dropped")
			}
		}
		members[0].stop()
		got, err = teller.Progress(t.Context(), "99999999999999-0")
		if err != nil || got != (Progress{Living: 2}) {
			t.Errorf("one has left, nobody has the entry: got %+v, %v", got, err)
		}
	})
}
