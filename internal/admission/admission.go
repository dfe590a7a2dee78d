// Package admission bounds what each user takes of the socket, before gRPC sees a request: its
// connections, its streams, and with them memory and descriptors. It tells apart those that a rule
// lists and those that none does.
//
// What it promises:
//
//   - One user cannot take all. It has no more connections than Limits say, nor more than are left
//     for others.
//   - Whoever is over a limit gets an answer. A few connections over it are let in as Excess, to be
//     told so; a flood of them is closed at once.
//   - Who is not listed has a few connections and reads slowly, for health checks.
package admission

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// The bounds of those that no rule lists, and of those over a limit.
const (
	// unlistedConnections are those of one user that no rule lists.
	unlistedConnections = 4
	// allUnlisted are those of all such users together, the process's own excepted: its probes have
	// their place whoever else comes.
	allUnlisted = 64
	// excessConnections are those of one user over its limit that are told so at once.
	excessConnections = 4
	// excessLife is how long these live.
	excessLife = time.Second
	// slowBytes is what a user may send in a second where it is slowed down, at once as well.
	slowBytes = 32 << 10
	// connectsPerSecond is how often such a user may connect in a second, at once as well.
	connectsPerSecond = 100
	// unlistedGrace is how long a connection lives on whose user a reload has taken off the list.
	unlistedGrace = 10 * time.Second
	// longStreams are those streams of one user that end when the caller wants, and longOnOne those of
	// one connection.
	longStreams = 256
	longOnOne   = 16
	// reclaimEvery is how often the room of a user's connections is looked through.
	reclaimEvery = 100 * time.Millisecond
	// idleUser is when a user without connections is forgotten.
	idleUser = time.Minute
	// manyUsers is when it is worth looking for those, the first time.
	manyUsers = 256
)

// Config is what an Admission goes by.
type Config struct {
	Limits Limits
	// Listed reports whether a rule in force is about the peer. It must not block.
	Listed func(unixsocket.Peer) bool
	// OwnUID is the process's own user, as which its probes run.
	OwnUID uint32
	// Descriptors returns how many connections there may be. Nil is by the process's limit, of which
	// it keeps a part for other uses.
	Descriptors func() int
}

// Admission bounds what users take. Make it with New. It is safe for concurrent use.
type Admission struct {
	config Config

	mu       sync.Mutex
	users    map[uint32]*user   // guarded by mu
	many     int                // guarded by mu: how many users are known when idle ones are forgotten
	open     map[*Conn]struct{} // guarded by mu
	unlisted int                // guarded by mu: connections of users that no rule lists, but for OwnUID's
}

// user is what one user takes. Its fields are guarded by the Admission's mu.
type user struct {
	connections [Excess + 1]int // by standing
	streams     int             // granted to its connections
	reclaimed   time.Time       // when their room was last looked through
	long        int
	slow        *rate.Limiter // of bytes, for where it is slowed down; safe for concurrent use
	connects    *rate.Limiter // of connections that are not Listed
	last        time.Time     // when the user last came or left
}

// New makes an Admission.
func New(config Config) *Admission {
	if config.Descriptors == nil {
		config.Descriptors = descriptorsForCallers
	}
	return &Admission{config: config, users: map[uint32]*user{}, many: manyUsers, open: map[*Conn]struct{}{}}
}

// Standing is how a connection was let in.
type Standing int

const (
	// Listed is a connection of a user that a rule lists.
	Listed Standing = iota
	// Unlisted is one of a user that no rule lists: it may ask for health alone.
	Unlisted
	// Excess is one over a limit. It is there to be told so, and closes soon.
	Excess
)

// admit decides whether a connection is let in, and as what.
func (a *Admission) admit(c *Conn) bool {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	// Rules are asked under the lock, so that Reload misses no connection.
	listed, u := a.config.Listed(c.peer), a.user(c.peer.UID, now)
	free := a.config.Descriptors() - len(a.open)
	switch {
	case listed && u.connections[Listed] < min(a.config.Limits.Connections, free):
		c.standing = Listed
	case free <= 0 || !u.connects.AllowN(now, 1):
		return false
	case !listed && u.connections[Unlisted] < unlistedConnections && a.unlistedMayCome(c.peer.UID):
		c.standing = Unlisted
		a.countUnlisted(c, 1)
	case u.connections[Excess] < excessConnections:
		c.standing = Excess
		time.AfterFunc(excessLife, func() { _ = c.Close() })
	default:
		return false
	}
	u.connections[c.standing]++
	c.user = u
	a.open[c] = struct{}{}
	return true
}

func (a *Admission) unlistedMayCome(uid uint32) bool {
	return uid == a.config.OwnUID || a.unlisted < allUnlisted
}

// countUnlisted must be called with mu held.
func (a *Admission) countUnlisted(c *Conn, by int) {
	if c.standing == Unlisted && c.peer.UID != a.config.OwnUID {
		a.unlisted += by
	}
}

// leave gives back what the connection took.
func (a *Admission) leave(c *Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.open[c]; !ok {
		return
	}
	delete(a.open, c)
	a.countUnlisted(c, -1)
	c.user.connections[c.standing]--
	c.mu.Lock()
	c.user.streams -= c.granted
	c.streams, c.granted = nil, 0
	c.mu.Unlock()
	c.user.last = time.Now()
}

// user must be called with mu held.
func (a *Admission) user(uid uint32, now time.Time) *user {
	u := a.users[uid]
	if u == nil {
		if len(a.users) >= a.many {
			a.forgetIdle(now)
		}
		u = &user{
			slow:     rate.NewLimiter(slowBytes, slowBytes),
			connects: rate.NewLimiter(connectsPerSecond, connectsPerSecond),
		}
		a.users[uid] = u
	}
	u.last = now
	return u
}

// forgetIdle must be called with mu held. The next look waits until twice as many are known as this
// one leaves, so that a new user costs the same however many there are.
func (a *Admission) forgetIdle(now time.Time) {
	for uid, u := range a.users {
		if u.connections == [Excess + 1]int{} && u.long == 0 && now.Sub(u.last) > idleUser {
			delete(a.users, uid)
		}
	}
	a.many = max(manyUsers, 2*len(a.users))
}

// Reload applies changed rules to the connections that are there. One whose user is listed now is
// closed, so that its client comes back as Listed: as Unlisted it had nothing under way but health
// checks. One whose user is not listed any more has some seconds for what is under way.
func (a *Admission) Reload() {
	a.mu.Lock()
	var listed, unlisted []*Conn
	for c := range a.open {
		switch now := a.config.Listed(c.peer); {
		case now && c.standing == Unlisted:
			listed = append(listed, c)
		case !now && c.standing == Listed:
			unlisted = append(unlisted, c)
		}
	}
	a.mu.Unlock()
	for _, c := range listed {
		_ = c.Close()
	}
	for _, c := range unlisted {
		time.AfterFunc(unlistedGrace, func() {
			if !a.config.Listed(c.peer) {
				_ = c.Close()
			}
		})
	}
}

// EnterLong counts in a stream that ends when its caller wants. It returns false when the user has
// too many of them. When it returns true, leave must follow.
func (c *Conn) EnterLong() (leave func(), ok bool) {
	a := c.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.long >= longOnOne || c.user.long >= longStreams {
		return nil, false
	}
	c.long++
	c.user.long++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		c.long--
		c.user.long--
	}, true
}

// firstStreams is what a connection is granted at a time at least.
const firstStreams = 8

// AdmitStream counts in a stream that lives until ctx is done. It returns false when the user has too
// many. Only the goroutine that reads from the connection may call it: gRPC's tap does.
//
// A connection is granted room for streams, twice as much whenever it is more than half full. So a
// stream costs the same however many there are, and takes no lock but its connection's.
func (c *Conn) AdmitStream(ctx context.Context) bool {
	admitted := c.take(ctx, false)
	if !admitted {
		c.admission.extend(c)
		admitted = c.take(ctx, true)
	}
	c.slow = !admitted || c.standing != Listed
	return admitted
}

// take puts the stream into the connection's room. It returns false when that is full, or more than
// half full and not yet extended.
func (c *Conn) take(ctx context.Context, extended bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) == c.granted {
		c.forgetEnded()
		if !extended && 2*len(c.streams) >= c.granted {
			return false
		}
	}
	if len(c.streams) == c.granted {
		return false
	}
	c.streams = append(c.streams, ctx)
	return true
}

// forgetEnded forgets the streams that have ended, and their headers with them. mu must be held.
func (c *Conn) forgetEnded() {
	c.streams = slices.DeleteFunc(c.streams, func(ctx context.Context) bool { return ctx.Err() != nil })
}

// extend grants the connection as much room again as it has, or one stream more, or nothing.
func (a *Admission) extend(c *Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, open := a.open[c]; !open {
		return
	}
	c.mu.Lock()
	by := max(c.granted, firstStreams)
	c.mu.Unlock()
	if c.user.streams+by > a.config.Limits.Streams {
		a.reclaim(c.user)
	}
	if c.user.streams+by > a.config.Limits.Streams {
		by = 1
	}
	if c.user.streams+by > a.config.Limits.Streams {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.granted += by
	c.user.streams += by
}

// reclaim takes back the room that the user's connections do not need. It looks at all of them, so it
// does that now and then only. a.mu must be held.
func (a *Admission) reclaim(u *user) {
	if now := time.Now(); now.Sub(u.reclaimed) >= reclaimEvery {
		u.reclaimed = now
		for c := range a.open {
			if c.user == u {
				u.streams -= c.giveBack()
			}
		}
	}
}

// giveBack returns how much room the connection had to spare.
func (c *Conn) giveBack() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetEnded()
	spare := c.granted - len(c.streams)
	c.granted = len(c.streams)
	return spare
}
