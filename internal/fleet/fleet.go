package fleet

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"
)

// Receiver drops what other sidecars say. Its methods return once nothing that was read before the
// call can answer any more.
type Receiver interface {
	// Drop does what the invalidation says. It reports false for one that it cannot read. What it
	// does later ends with ctx, which is Run's.
	Drop(ctx context.Context, what Invalidation) bool
	// DropAll drops everything: something may have been missed.
	DropAll()
}

// Stats is what a Fleet has done since it was opened.
type Stats struct {
	// Connected says that the stream is being followed.
	Connected bool
	// Applied counts entries of others, Own those of this sidecar, Malformed those that were ignored.
	Applied, Own, Malformed uint64
	// Resyncs counts how often everything was dropped because entries may have been missed.
	Resyncs uint64
	// Published counts invalidations that were told, Failed those that could not be, Limited those
	// that were too many.
	Published, Failed, Limited uint64
}

// Fleet is the way to the other sidecars. Its methods are safe for concurrent use. Make one with
// Open.
type Fleet struct {
	// client appends and asks; reading follows the stream and is closed when Run ends: a read in
	// progress does not end otherwise.
	client, reading redis.UniversalClient

	stream string
	origin string // of this process
	log    *slog.Logger

	connected               atomic.Bool
	applied, own, malformed atomic.Uint64
	resyncs                 atomic.Uint64
	published, failed       atomic.Uint64
	limited                 atomic.Uint64

	mu      sync.Mutex
	waiting map[Invalidation]*telling // guarded by mu: not sent yet
	sending bool                      // guarded by mu: a goroutine sends what waits
	limit   *rate.Limiter
	senders sync.WaitGroup // that goroutine
}

// Open makes a Fleet. It connects to nothing yet: Redis may be away. The caller closes it.
func Open(config Config, log *slog.Logger) (*Fleet, error) {
	client, err := config.connect()
	if err != nil {
		return nil, err
	}
	reading, err := config.connect()
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	stream := config.Stream
	if stream == "" {
		stream = DefaultStream
	}
	return &Fleet{
		client: client, reading: reading, stream: stream, origin: randomID(), log: log,
		waiting: map[Invalidation]*telling{}, limit: rate.NewLimiter(tellEvery, tellBurst),
	}, nil
}

// Stream is the name of the stream.
func (f *Fleet) Stream() string { return f.stream }

// Stats returns the present numbers.
func (f *Fleet) Stats() Stats {
	return Stats{
		Connected: f.connected.Load(),
		Applied:   f.applied.Load(), Own: f.own.Load(), Malformed: f.malformed.Load(),
		Resyncs:   f.resyncs.Load(),
		Published: f.published.Load(), Failed: f.failed.Load(), Limited: f.limited.Load(),
	}
}

// Close waits for what is being sent, and closes the connections. Call it when Run has returned.
func (f *Fleet) Close() error {
	f.senders.Wait()
	for _, client := range []redis.UniversalClient{f.reading, f.client} {
		if err := client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			return unusable(err)
		}
	}
	return nil
}

// within bounds one command.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, dialTimeout+commandTimeout)
}

// pause waits, and reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
