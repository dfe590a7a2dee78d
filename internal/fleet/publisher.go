package fleet

import (
	"cmp"
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

const (
	// tellEvery and tellBurst bound how many entries a second one process appends. Each makes every
	// sidecar drop something and read it again.
	tellEvery = 100
	tellBurst = 1000
	// maxSent is how many entries go out together.
	maxSent = 128
	// streamLength is about how many entries are kept. A sidecar that has been away for longer drops
	// everything. An entry takes about 200 bytes of Redis's memory.
	streamLength = 10_000
)

var errNoAnswer = errors.New("no answer")

// telling is one invalidation on its way, shared by all who want it told and came before it was
// sent.
type telling struct {
	what Invalidation
	done chan struct{} // closed when id and err are set
	id   string
	err  error
}

// Tell appends the invalidation to the stream, and returns the entry's id once Redis has it. What
// the caller drops itself, it drops before. Its error wraps ErrUnreachable,
// ErrTooMany or ErrInvalid.
func (f *Fleet) Tell(ctx context.Context, what Invalidation) (id string, err error) {
	if !what.isValid() {
		return "", ErrInvalid
	}
	one, err := f.join(what)
	if err != nil {
		return "", err
	}
	select {
	case <-one.done:
		return one.id, one.err
	case <-ctx.Done():
		return "", unusable(ctx.Err())
	}
}

// join returns the telling that will be sent after now. One that is being sent is too old: who
// reads its entry may do so before this call, and read Vault before the caller's change.
func (f *Fleet) join(what Invalidation) (*telling, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one := f.waiting[what]; one != nil {
		return one, nil
	}
	if !f.limit.Allow() {
		f.limited.Add(1)
		return nil, ErrTooMany
	}
	one := &telling{what: what, done: make(chan struct{})}
	f.waiting[what] = one
	if !f.sending {
		f.sending = true
		f.senders.Go(f.send)
	}
	return one, nil
}

// send appends what waits, until nothing does. It is the one goroutine that does; its commands are
// bounded in time.
func (f *Fleet) send() {
	for batch := f.take(); len(batch) > 0; batch = f.take() {
		f.append(batch)
		for _, one := range batch {
			f.countTold(one)
			close(one.done)
		}
	}
}

func (f *Fleet) countTold(one *telling) {
	if one.err != nil {
		f.failed.Add(1)
		return
	}
	f.published.Add(1)
}

// take removes some of those that wait. When there are none, the sender's time is over.
func (f *Fleet) take() []*telling {
	f.mu.Lock()
	defer f.mu.Unlock()
	var batch []*telling
	for what, one := range f.waiting {
		if len(batch) == maxSent {
			break
		}
		batch = append(batch, one)
		delete(f.waiting, what)
	}
	f.sending = len(batch) > 0
	return batch
}

// append sends the batch as one pipeline and notes what became of each.
func (f *Fleet) append(batch []*telling) {
	ctx, cancel := within(context.Background())
	defer cancel()
	answers := make([]*redis.StringCmd, len(batch))
	_, failure := f.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, one := range batch {
			answers[i] = pipe.XAdd(ctx, f.newEntry(entry{what: one.what, origin: f.origin}))
		}
		return nil
	})
	for i, answer := range answers {
		id, err := answer.Result()
		if id == "" { // a connection that cannot be opened leaves the answers without an error
			batch[i].err = unusable(cmp.Or(err, failure, errNoAnswer))
			continue
		}
		batch[i].id = id
	}
}

func (f *Fleet) newEntry(e entry) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: f.stream, MaxLen: streamLength, Approx: true, Values: e.fields()}
}
