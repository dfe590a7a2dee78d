package admission

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

const ownUID = 65532

// listed lists the users below 1000.
func listed(peer unixsocket.Peer) bool { return peer.UID < 1000 }

func newTested(descriptors int, limits Limits) *Admission {
	return New(Config{Limits: limits, Listed: listed, OwnUID: ownUID, Descriptors: func() int { return descriptors }})
}

// come tries so many connections of a user, and returns those that are let in.
func come(a *Admission, uid uint32, times int) []*Conn {
	var in []*Conn
	for range times {
		c := &Conn{UnixConn: new(net.UnixConn), admission: a, peer: unixsocket.Peer{UID: uid}, closed: make(chan struct{})}
		if a.admit(c) {
			in = append(in, c)
		}
	}
	return in
}

func count(conns []*Conn, standing Standing) int {
	n := 0
	for _, c := range conns {
		if c.standing == standing {
			n++
		}
	}
	return n
}

func wantCount(t *testing.T, what string, got, least, most int) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s: %d, want %d to %d", what, got, least, most)
	}
}

func TestOneUserHasNoMoreConnectionsThanAreLeftForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTested(100, Limits{Connections: 1000, Streams: 1000})
		first := come(a, 1, 500)
		wantCount(t, "the greedy first", count(first, Listed), 45, 50)
		wantCount(t, "the greedy second", count(come(a, 2, 500), Listed), 20, 25)
		wantCount(t, "a modest third", count(come(a, 3, 3), Listed), 3, 3)
		for _, c := range first {
			_ = c.Close()
		}
		time.Sleep(2 * excessLife)
		wantCount(t, "after the first has left, a fourth", count(come(a, 4, 30), Listed), 30, 30)
	})
}

func TestOneUserHasNoMoreConnectionsThanItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTested(100_000, Limits{Connections: 10, Streams: 1000})
		in := come(a, 1, 10)
		more := come(a, 1, 100)
		wantCount(t, "within the limit", count(in, Listed), 10, 10)
		wantCount(t, "told that there are too many", count(more, Excess), excessConnections, excessConnections)
		wantCount(t, "let in over the limit", len(more), excessConnections, excessConnections)
		time.Sleep(2 * excessLife)
		wantCount(t, "told after a pause", count(come(a, 1, 100), Excess), excessConnections, excessConnections)
		_ = in[0].Close()
		_ = in[0].Close() // counts once
		wantCount(t, "in the place of one that left", count(come(a, 1, 5), Listed), 1, 1)
	})
}

func TestThoseThatNoRuleListsHaveAFewConnectionsAndLeaveRoomForTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTested(100_000, Limits{Connections: 1000, Streams: 1000})
		flood := come(a, 2000, 1000)
		wantCount(t, "of one user", count(flood, Unlisted), unlistedConnections, unlistedConnections)
		wantCount(t, "told so", count(flood, Excess), excessConnections, excessConnections)
		all := 0
		for uid := range uint32(100) {
			all += count(come(a, 3000+uid, 4), Unlisted)
		}
		wantCount(t, "of all users", all, allUnlisted-unlistedConnections, allUnlisted-unlistedConnections)
		wantCount(t, "of the probe", count(come(a, ownUID, 2), Unlisted), 2, 2)
		wantCount(t, "of a worker", count(come(a, 1, 500), Listed), 500, 500)
	})
}

func TestAnUnlistedUserThatConnectsInALoopIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTested(1000, Limits{Connections: 1000, Streams: 1000})
		let := 0
		for range 10_000 {
			for _, c := range come(a, 2000, 1) {
				let++
				_ = c.Close()
			}
		}
		wantCount(t, "at once", let, 1, connectsPerSecond)
		time.Sleep(time.Second)
		wantCount(t, "a second later", len(come(a, 2000, 3)), 3, 3)
	})
}

func TestTheStreamsOfOneUserAreBoundedOnAllItsConnectionsTogether(t *testing.T) {
	const limit, connections = 1000, 40
	a := newTested(1000, Limits{Connections: 1000, Streams: limit})
	ctx, end := context.WithCancel(t.Context())
	admitted := 0
	in := come(a, 1, connections)
	for _, c := range in {
		for range 100 {
			if c.AdmitStream(ctx) {
				admitted++
			}
		}
	}
	wantCount(t, "streams of one user", admitted, limit/2, limit)
	other := come(a, 2, 1)[0]
	if !other.AdmitStream(ctx) {
		t.Error("another user has no stream")
	}
	end()
	again, more := 0, context.Background()
	for range limit / 2 {
		if in[0].AdmitStream(more) {
			again++
		}
	}
	for _, c := range in[1:] {
		if c.AdmitStream(more) {
			again++
		}
	}
	wantCount(t, "streams after all have ended", again, connections, limit)
	for _, c := range in {
		_ = c.Close()
	}
	if left := a.users[1].streams; left != 0 {
		t.Errorf("%d streams are still granted to closed connections", left)
	}
	if in[0].AdmitStream(more) {
		t.Error("a closed connection is granted streams")
	}
}

func TestRoomThatOtherConnectionsDoNotNeedIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, connections = 1000, 300
		a := newTested(1000, Limits{Connections: 1000, Streams: limit})
		for _, c := range come(a, 1, connections) { // many connections of which each has had its burst
			ctx, end := context.WithCancel(t.Context())
			for range limit / 2 {
				if !c.AdmitStream(ctx) {
					t.Fatal("a stream is refused though all others have ended")
				}
			}
			end()
			time.Sleep(reclaimEvery)
		}
	})
}

func TestAStreamCostsTheSameHoweverManyThereAre(t *testing.T) {
	a := newTested(1000, Limits{Connections: 1000, Streams: 100_000})
	c := come(a, 1, 1)[0]
	looked := 0
	for range 20_000 {
		if !c.AdmitStream(&counted{Context: context.Background(), looked: &looked}) {
			t.Fatal("a stream is refused")
		}
	}
	if looked > 5*20_000 {
		t.Errorf("%d looks at 20,000 streams", looked)
	}
}

// counted counts how often it is asked whether it has ended.
type counted struct {
	context.Context //nolint:containedctx // it is one
	looked          *int
}

func (c *counted) Err() error {
	*c.looked++
	return nil
}

func TestStreamsThatLastAreBoundedForEachConnectionAndUser(t *testing.T) {
	a := newTested(1000, Limits{Connections: 1000, Streams: 10_000})
	entered := 0
	var leave func()
	for _, c := range come(a, 1, 100) {
		of := 0
		for range 100 {
			if left, ok := c.EnterLong(); ok {
				leave = left
				of++
			}
		}
		wantCount(t, "of one connection", of, 0, longOnOne)
		entered += of
	}
	wantCount(t, "of one user", entered, longStreams, longStreams)
	leave()
	if _, ok := come(a, 1, 1)[0].EnterLong(); !ok {
		t.Error("one that ended leaves no room")
	}
}

func TestAReloadAppliesToTheConnectionsThatAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := uint32(1000)
		a := New(Config{
			Limits: Limits{Connections: 10, Streams: 10}, Descriptors: func() int { return 100 },
			Listed: func(peer unixsocket.Peer) bool { return peer.UID < limit },
		})
		stays, leaves := come(a, 1, 1)[0], come(a, 500, 1)[0]
		limit = 100
		a.Reload()
		if isClosed(leaves) {
			t.Error("what is under way is cut off at once")
		}
		time.Sleep(unlistedGrace)
		synctest.Wait()
		if !isClosed(leaves) || isClosed(stays) {
			t.Errorf("after the grace: left is closed %v, stayed is closed %v", isClosed(leaves), isClosed(stays))
		}
		unlisted := come(a, 500, 1)[0]
		limit = 1000
		a.Reload()
		if !isClosed(unlisted) {
			t.Error("a user that is listed now keeps its unlisted connection")
		}
	})
}

func isClosed(c *Conn) bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func TestUsersThatAreGoneAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTested(1000, Limits{Connections: 10, Streams: 10})
		for uid := range uint32(10 * manyUsers) {
			for _, c := range come(a, 2000+uid, 1) {
				_ = c.Close()
			}
			time.Sleep(time.Second)
		}
		wantCount(t, "users remembered", len(a.users), 1, 2*manyUsers)
	})
}

func TestLimitsFollowTheMemory(t *testing.T) {
	for _, test := range []struct {
		memory int64
		want   Limits
	}{
		{64 << 20, Limits{Connections: 128, Streams: 655}},
		{256 << 20, Limits{Connections: 512, Streams: 2621}},
		{1 << 62, Limits{Connections: mostConnections, Streams: mostStreams}},
		{1 << 20, Limits{Connections: fewestConnections, Streams: fewestStreams}},
	} {
		if got := LimitsWithin(test.memory); got != test.want {
			t.Errorf("within %d bytes: %+v, want %+v", test.memory, got, test.want)
		}
	}
}

func TestAPartOfTheDescriptorsIsKeptForOtherUses(t *testing.T) {
	for limit, want := range map[uint64]uint64{64: 48, 1024: 896, 1 << 20: 1<<20 - 128} {
		if got := forCallers(limit); got != want {
			t.Errorf("of %d descriptors, %d are for callers, want %d", limit, got, want)
		}
	}
}
