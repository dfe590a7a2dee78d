package fleet

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// sayEvery is how often a sidecar says that it lives, and aliveFor how long that counts.
	sayEvery = 5 * time.Second
	aliveFor = 20 * time.Second
	// maxAsked is how many sidecars are asked for together.
	maxAsked = 1000
)

// Of each sidecar there is a key, which holds the last entry that it has dropped and expires, and
// a member of a set, by which the key is found. The braces put them where a cluster has the stream.
func (f *Fleet) membersKey() string { return "{" + f.stream + "}:sidecars" }

func (f *Fleet) memberKey(origin string) string { return "{" + f.stream + "}:sidecar:" + origin }

// say tells that the sidecar lives and what it has dropped.
func (r *reader) say(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	r.said = time.Now()
	_, err := r.conn.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, r.memberKey(r.origin), r.position, aliveFor)
		pipe.SAdd(ctx, r.membersKey(), r.origin)
		return nil
	})
	return err
}

// leave takes the sidecar out of those that live, if Redis was there just now: the key expires
// anyway. It is called after ctx is done.
func (f *Fleet) leave(ctx context.Context, connected bool) {
	if !connected {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTimeout)
	defer cancel()
	_, _ = f.client.Pipelined(ctx, func(pipe redis.Pipeliner) error { // else the key expires
		pipe.Del(ctx, f.memberKey(f.origin))
		pipe.SRem(ctx, f.membersKey(), f.origin)
		return nil
	})
}

// Progress says how many sidecars live, and how many of them have dropped an entry.
type Progress struct{ Living, Acknowledged int }

// Done says that no sidecar is left to wait for.
func (p Progress) Done() bool { return p.Acknowledged >= p.Living }

// Progress returns how far the entry with this id has come. A sidecar that has lost its connection
// to Redis counts as living for 20 s. Its error wraps ErrUnreachable.
func (f *Fleet) Progress(ctx context.Context, id string) (Progress, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	origins, err := f.client.SMembers(ctx, f.membersKey()).Result()
	if err != nil {
		return Progress{}, unusable(err)
	}
	var progress Progress
	for len(origins) > 0 {
		some := origins[:min(len(origins), maxAsked)]
		origins = origins[len(some):]
		if err := f.addProgress(ctx, id, some, &progress); err != nil {
			return Progress{}, unusable(err)
		}
	}
	return progress, nil
}

func (f *Fleet) addProgress(ctx context.Context, id string, origins []string, progress *Progress) error {
	keys := make([]string, len(origins))
	for i, origin := range origins {
		keys[i] = f.memberKey(origin)
	}
	positions, err := f.client.MGet(ctx, keys...).Result()
	if err != nil {
		return err
	}
	var dead []any
	for i, position := range positions {
		at, lives := position.(string)
		if !lives {
			dead = append(dead, origins[i])
			continue
		}
		progress.Living++
		if !before(at, id) {
			progress.Acknowledged++
		}
	}
	if len(dead) > 0 {
		err = f.client.SRem(ctx, f.membersKey(), dead...).Err()
	}
	return err
}

// Wait asks for the progress until every living sidecar has dropped the entry, or ctx is done, and
// tells of each change. Its error is ctx's, or wraps ErrUnreachable.
func (f *Fleet) Wait(ctx context.Context, id string, tell func(Progress)) (Progress, error) {
	var last Progress
	for first := true; ; first = false {
		now, err := f.Progress(ctx, id)
		switch {
		case err != nil && ctx.Err() == nil:
			return last, err
		case err == nil:
			if first || now != last {
				tell(now)
			}
			last = now
			if now.Done() {
				return last, nil
			}
		}
		if !pause(ctx, askEvery) {
			return last, ctx.Err()
		}
	}
}

// askEvery is how often Wait asks.
const askEvery = 50 * time.Millisecond

// before reports whether an id of a stream is lower than another. What is no id is lower than all.
func before(id, other string) bool {
	a, aErr := parseID(id)
	b, bErr := parseID(other)
	switch {
	case aErr != nil || bErr != nil:
		return aErr != nil
	case a[0] != b[0]:
		return a[0] < b[0]
	}
	return a[1] < b[1]
}

func parseID(id string) (parts [2]uint64, err error) {
	milliseconds, sequence, _ := strings.Cut(id, "-")
	first, firstErr := strconv.ParseUint(milliseconds, 10, 64)
	second, secondErr := strconv.ParseUint(sequence, 10, 64)
	return [2]uint64{first, second}, errors.Join(firstErr, secondErr)
}
