package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// Watch implements the API.
func (s *Server) Watch(
	request *secretsidecarv1.WatchRequest, stream secretsidecarv1.SecretService_WatchServer,
) error {
	ctx, began := stream.Context(), time.Now()
	err := s.watch(request, stream)
	failed, _ := errors.AsType[*problem](err)
	s.logRequest(ctx, methodWatch, began, failed)
	return err
}

// watch turns a panic into a problem. Other errors of it are problems, or those of the stream.
func (s *Server) watch(
	request *secretsidecarv1.WatchRequest, stream secretsidecarv1.SecretService_WatchServer,
) (err error) {
	ctx := stream.Context()
	defer func() {
		if value := recover(); value != nil {
			err = s.recovered(ctx, methodWatch, value)
		}
	}()
	caller, err := callerOf(ctx)
	if err != nil {
		return err
	}
	leave, refused := s.enterWatch(ctx, caller, request)
	if refused != nil {
		s.noteRefusal(ctx, methodWatch, refused, secretsAskedFor(request))
		s.recordUnhandled(ctx, request, refused)
		return refused
	}
	defer leave()
	items := request.GetRequests()
	if len(items) == 0 || len(items) > maxBatch {
		return errInvalidRequest(field("requests",
			fmt.Sprintf("must hold 1 to %d requests, not %d", maxBatch, len(items))))
	}
	w := newWatcher(s, caller, items)
	defer w.leave()
	return w.run(ctx, stream)
}

// enterWatch counts the stream in, if its caller may watch at all, and within its limits. When it
// refuses none, leave must follow.
func (s *Server) enterWatch(
	ctx context.Context, caller unixsocket.Peer, request *secretsidecarv1.WatchRequest,
) (leave func(), refused *problem) {
	unmeter, refused := s.enterJudged(ctx, request, methodWatch)
	if refused != nil {
		return nil, refused
	}
	if refused := s.watches.enter(caller); refused != nil {
		unmeter()
		return nil, refused
	}
	return func() { s.watches.leave(caller); unmeter() }, nil
}

// watcher is one stream of Watch. Its goroutine owns it.
type watcher struct {
	*Server
	caller unixsocket.Peer
	items  []watchItem
	// notify says that a secret has another state. It holds one word: the states are looked up, so
	// that a slow watcher gets the latest and no backlog.
	notify chan struct{}
}

// watchItem is one request of a stream.
type watchItem struct {
	request *secretsidecarv1.ResolveRequest
	secret  *watchedSecret // nil: it is not admitted now
	told    bool
	last    watchedState // what was sent last, once told
}

// watchedState is what makes one state of a request differ from another.
type watchedState struct {
	reason  string // of a problem; empty for a secret
	value   string
	kind    secretsidecarv1.ValueType
	version uint32
	created int64
	stale   bool
}

func newWatcher(s *Server, caller unixsocket.Peer, requests []*secretsidecarv1.ResolveRequest) *watcher {
	w := &watcher{Server: s, caller: caller, items: make([]watchItem, len(requests)), notify: make(chan struct{}, 1)}
	for i, request := range requests {
		w.items[i].request = request
	}
	return w
}

// run sends the state of each item, and each change, until the watcher leaves or the server stops.
func (w *watcher) run(ctx context.Context, stream secretsidecarv1.SecretService_WatchServer) error {
	for {
		reloaded := w.watches.untilReload()
		for i := range w.items {
			if err := w.update(ctx, i, stream); err != nil {
				return err
			}
		}
		select {
		case <-w.notify:
		case <-reloaded:
		case <-ctx.Done():
			return errWatchEnded()
		}
	}
}

// update sends the item's state if it is another one than was sent last. The caller's rules are
// those of now: a reload may have changed them.
func (w *watcher) update(ctx context.Context, i int, stream secretsidecarv1.SecretService_WatchServer) error {
	item := &w.items[i]
	o := outcome{request: item.request}
	if !w.look(item, &o) {
		return nil // it is being read
	}
	if item.told && watchedStateOf(&o) == item.last {
		return nil
	}
	outcomes := []outcome{o}
	// What the audit log could not take is no state that was sent: the next look tries again.
	_ = w.record(ctx, w.caller, methodWatch, outcomes)
	if err := w.tell(ctx, i, &outcomes[0], stream); err != nil {
		return err
	}
	item.told, item.last = true, watchedStateOf(&outcomes[0])
	return nil
}

// tell sends a state. It counts as an answer until it has left: a watcher that does not read loses
// its connection in time, as whoever does not read an answer.
func (w *watcher) tell(
	ctx context.Context, i int, o *outcome, stream secretsidecarv1.SecretService_WatchServer,
) error {
	sent, refused := w.send(ctx, methodWatch, watchResponse(i, o), func() {})
	if refused != nil {
		return refused
	}
	return stream.SendMsg(sent)
}

// look fills in what the item's state is now; false is that it is not known yet.
func (w *watcher) look(item *watchItem, o *outcome) bool {
	asked, err := w.admit(w.current.Load(), w.caller, methodWatch, item.request)
	o.connection = asked.connection
	if asked.connection != nil {
		defer asked.connection.release()
	}
	if err != nil {
		w.unsubscribe(item)
		o.fail(err)
		return true
	}
	key := watchKeyOf(asked)
	if item.secret == nil || item.secret.key != key {
		w.unsubscribe(item)
		item.secret = w.watches.subscribe(key, w.notify)
	}
	read := item.secret.read.Load()
	if read == nil {
		return false
	}
	o.settle(asked.reference.Key, read.found, read.err, new(resolved))
	return true
}

func (w *watcher) unsubscribe(item *watchItem) {
	if item.secret != nil {
		w.watches.unsubscribe(item.secret, w.notify)
		item.secret = nil
	}
}

// leave ends all subscriptions. Two items of one secret share one.
func (w *watcher) leave() {
	for i := range w.items {
		w.unsubscribe(&w.items[i])
	}
}

func watchedStateOf(o *outcome) watchedState {
	if o.problem != nil {
		return watchedState{reason: o.problem.reason}
	}
	return watchedState{
		value: o.secret.GetValue(), kind: o.secret.GetValueType(), version: o.secret.GetVersion(),
		created: o.secret.GetVersionCreatedAt().AsTime().UnixNano(),
		stale:   o.secret.GetSource() == secretsidecarv1.Source_SOURCE_STALE,
	}
}

func watchResponse(index int, o *outcome) *secretsidecarv1.WatchResponse {
	response := &secretsidecarv1.WatchResponse{Index: uint32(index)} // #nosec G115 -- below maxBatch
	if o.problem != nil {
		response.Outcome = &secretsidecarv1.WatchResponse_Error{Error: o.problem.resolveError()}
		return response
	}
	response.Outcome = &secretsidecarv1.WatchResponse_Secret{Secret: o.secret}
	return response
}

// watchKey is what requests must have in common to share a poll.
type watchKey struct {
	connection string
	space      string // the session's: what another Vault said is nothing to share
	path       string
	version    uint32
	maxStale   time.Duration // negative: the connection's
}

func watchKeyOf(asked lookup) watchKey {
	key := watchKey{
		connection: asked.connection.Name, space: asked.connection.space,
		path: asked.reference.Path, version: asked.version, maxStale: -1,
	}
	if asked.maxStale != nil {
		key.maxStale = *asked.maxStale
	}
	return key
}
