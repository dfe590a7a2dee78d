package fleet

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/redis/go-redis/v9"
)

const (
	// readWait is how long one read waits for the next entry, and readGrace how much longer a Redis
	// that is well may take to say that there is none.
	readWait  = time.Second
	readGrace = 3 * time.Second
	readCount = 256
	// The pauses between two attempts to follow the stream, drawn at random so that a fleet does not
	// come back in step.
	firstPause = 200 * time.Millisecond
	maxPause   = 5 * time.Second
	// farewellTimeout bounds how long the end takes to tell the others.
	farewellTimeout = time.Second
)

// reader follows the stream. One goroutine owns it: that of Run.
type reader struct {
	*Fleet
	receiver Receiver
	conn     *redis.Conn
	// position is the last entry that was dropped; empty before the first connection.
	position string
	// server is the run id of the Redis that position came from; empty where it does not tell.
	server string
	// said is when the others were told of the position last.
	said time.Time
}

// Run follows the stream until ctx is done, whatever becomes of Redis, and gives the receiver what
// other sidecars tell. It is called once.
func (f *Fleet) Run(ctx context.Context, receiver Receiver) {
	defer context.AfterFunc(ctx, func() { _ = f.reading.Close() })()
	r := &reader{Fleet: f, receiver: receiver}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = firstPause, maxPause
	told := false // the log says that Redis is away
	for {
		err := r.follow(ctx)
		was := f.connected.Swap(false)
		if was {
			pauses.Reset()
			told = false
		}
		if ctx.Err() != nil {
			f.leave(ctx, was)
			return
		}
		if !told {
			told = true
			f.log.Warn("the fleet's Redis is away: other sidecars are neither heard nor told", "error", unusable(err))
		}
		pause(ctx, pauses.NextBackOff())
	}
}

// follow reads the stream over one connection until that fails.
func (r *reader) follow(ctx context.Context) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	defer func() { _ = r.conn.Close() }()
	if err := r.resume(ctx); err != nil {
		return err
	}
	r.connected.Store(true)
	r.log.Info("the fleet is connected: what other sidecars invalidate is dropped here", "stream", r.stream)
	for {
		if err := r.read(ctx); err != nil {
			return err
		}
	}
}

// open takes a connection to the server that has the stream.
func (r *reader) open(ctx context.Context) error {
	node, err := r.node(ctx)
	if err != nil {
		return err
	}
	r.conn = node.EphemeralConn()
	return nil
}

// node is the server that has the stream. In a cluster a command about the stream comes first: it
// makes the client learn where the stream has gone.
func (r *reader) node(ctx context.Context) (*redis.Client, error) {
	switch client := r.reading.(type) {
	case *redis.Client:
		return client, nil
	case *redis.ClusterClient:
		ctx, cancel := within(ctx)
		defer cancel()
		if err := client.XLen(ctx, r.stream).Err(); err != nil {
			return nil, err
		}
		return client.MasterForKey(ctx, r.stream)
	}
	return nil, errors.New("no such kind of client")
}

// resume decides whether reading can go on from where it was. It cannot when another server
// answers than before, or the same after a restart: what it has may be older than what was told.
// Nor can it when the last entry is gone.
func (r *reader) resume(ctx context.Context) error {
	server, err := r.runID(ctx)
	if err != nil {
		return err
	}
	first := r.position == ""
	kept := false
	if server != "" && server == r.server && !first {
		if kept, err = r.keepsPosition(ctx); err != nil {
			return err
		}
	}
	if !kept {
		if err := r.resync(ctx, first); err != nil {
			return err
		}
	}
	r.server = server
	return r.say(ctx)
}

// runID returns what tells one start of one server from all others; empty where the server does
// not say, which no comparison takes for the same.
func (r *reader) runID(ctx context.Context) (string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	info, err := r.conn.Info(ctx, "server").Result()
	if _, refused := errors.AsType[redis.Error](err); refused && !errors.Is(err, redis.Nil) {
		return "", passing(err)
	}
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(info, "run_id:")
	id, _, _ := strings.Cut(rest, "\r\n")
	return id, nil
}

// passing returns the errors of a server that answers nothing now, and nil for one that does not
// like the question.
func passing(err error) error {
	word, _, _ := strings.Cut(err.Error(), " ")
	switch word {
	case "LOADING", "NOAUTH", "WRONGPASS", "MASTERDOWN", "CLUSTERDOWN":
		return err
	}
	return nil
}

func (r *reader) keepsPosition(ctx context.Context) (bool, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	found, err := r.conn.XRange(ctx, r.stream, r.position, r.position).Result()
	return len(found) == 1, err
}

// resync takes the newest entry for the position and then drops everything: what was told until
// then is dropped with it, and what is told later is read.
func (r *reader) resync(ctx context.Context, first bool) error {
	newest, err := r.newest(ctx)
	if err != nil {
		return err
	}
	r.receiver.DropAll()
	r.position = newest
	if !first {
		r.resyncs.Add(1)
		r.log.Warn("invalidations of other sidecars may be missing: everything is dropped", "stream", r.stream)
	}
	return nil
}

// newest returns the id of the newest entry. An empty stream gets one: the sidecars could not tell
// otherwise whether entries have come and gone.
func (r *reader) newest(ctx context.Context) (string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	found, err := r.conn.XRevRangeN(ctx, r.stream, "+", "-", 1).Result()
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return found[0].ID, nil
	}
	return r.conn.XAdd(ctx, r.newEntry(entry{start: true, origin: r.origin})).Result()
}

// read waits for entries, drops what they say and acknowledges them.
func (r *reader) read(ctx context.Context) error {
	messages, err := r.next(ctx)
	if err != nil {
		return err
	}
	if len(messages) > 0 {
		r.apply(ctx, messages)
		r.position = messages[len(messages)-1].ID
		return r.say(ctx)
	}
	if time.Since(r.said) < sayEvery {
		return nil
	}
	// A stream that was deleted may begin again with ids that are lower.
	kept, err := r.keepsPosition(ctx)
	if err != nil {
		return err
	}
	if !kept {
		if err := r.resync(ctx, false); err != nil {
			return err
		}
	}
	return r.say(ctx)
}

// next returns the entries after the position, none when nothing came for a while.
func (r *reader) next(ctx context.Context) ([]redis.XMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, readWait+readGrace)
	defer cancel()
	streams, err := r.conn.XRead(ctx, &redis.XReadArgs{
		Streams: []string{r.stream, r.position}, Count: readCount, Block: readWait,
	}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case err != nil:
		return nil, err
	case len(streams) == 0:
		return nil, nil
	}
	return streams[0].Messages, nil
}

// apply drops what the entries of others say.
func (r *reader) apply(ctx context.Context, messages []redis.XMessage) {
	var wanted []Invalidation
	malformed := 0
	for _, message := range messages {
		e, err := parseEntry(message.Values)
		switch {
		case err != nil:
			malformed++
		case e.origin == r.origin:
			r.own.Add(1)
		case !e.start:
			r.applied.Add(1)
			wanted = append(wanted, e.what)
		}
	}
	for _, one := range coalesce(wanted) {
		if !r.receiver.Drop(ctx, one) {
			malformed++
		}
	}
	if malformed > 0 {
		r.malformed.Add(uint64(malformed)) // #nosec G115 -- a count
		r.log.Warn("an entry of the fleet's stream is malformed and ignored", "stream", r.stream)
	}
}
