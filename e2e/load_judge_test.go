package e2e_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// expectation is what may be answered while a fault lasts. The zero value allows fresh values
// alone.
type expectation struct {
	// outage may be answered to a request that takes nothing stale, or whose secret was
	// invalidated. Every other request is answered with a value, a stale one perhaps.
	outage []failure
	// failures returns what the worker was answered instead of a value.
	failures []failure
}

var (
	healthy = expectation{}
	// disconnected is what gRPC itself says when the sidecar's process is gone.
	disconnected = failure{codes.Unavailable, ""}
)

// target is one connection under load.
type target struct {
	connection string
	history    *history
	// asks its Vault without the sidecar; nil when there is nothing to compare with
	direct     probe
	isCalm     bool // nothing is ever wrong with it
	mayTimeOut bool // its timeout is short: a busy machine may make an outage at any time
}

// The secrets of every target. Those that are kept warm are never invalidated, so that there is a
// copy in an outage.
var (
	warmPaths   = []string{"secret/data/warm-0", "secret/data/warm-1", "secret/data/team/warm-2"}
	fencedPaths = []string{"secret/data/fenced-0", "secret/data/fenced-1"}
	loadPaths   = slices.Concat(warmPaths, fencedPaths)
)

// question makes up a request.
func (c *target) question() (*secretsidecarv1.ResolveRequest, question) {
	path, key := loadPaths[rand.IntN(len(loadPaths))], keys[rand.IntN(len(keys))]
	request := &secretsidecarv1.ResolveRequest{Connection: c.connection, Path: path + "/" + key}
	q := question{path: path, key: key, ttl: loadTTL, maxAge: loadTTL, maxStale: loadStale,
		notBefore: c.history.fence(path)}
	switch rand.IntN(6) {
	case 0:
		request.MaxAge, q.maxAge = durationpb.New(0), 0
	case 1:
		q.maxAge = 300 * time.Millisecond
		request.MaxAge = durationpb.New(q.maxAge)
	case 2:
		request.MaxStale, q.maxStale = durationpb.New(0), 0
	case 3:
		request.Path, request.Key = path, key
	}
	q.began = time.Now()
	return request, q
}

// verify judges one answer.
func (l *load) verify(target *target, q question, phase int,
	answer *secretsidecarv1.ResolveResponse, failed *failure) {
	expected := l.since(phase)
	if target.isCalm {
		expected.outage = nil
	}
	if target.mayTimeOut {
		expected.outage = append(expected.outage, unreachable)
	}
	if took := time.Since(q.began); took > patience {
		l.complain("%s %s: the answer took %v", target.connection, q.path, took)
	}
	if failed != nil {
		l.count(target.connection + " " + failed.reason)
		mayFail := slices.Contains(expected.failures, *failed) ||
			slices.Contains(expected.outage, *failed) &&
				(q.maxStale == 0 || slices.Contains(fencedPaths, q.path))
		if !mayFail {
			l.complain("%s %s (max_age %v, max_stale %v) failed: %v", target.connection, q.path,
				q.maxAge,
				q.maxStale, *failed)
		}
		return
	}
	l.count(target.connection + " " + strings.TrimPrefix(answer.GetSource().String(), "SOURCE_"))
	if answer.GetSource() == stale && expected.outage == nil {
		l.complain("%s %s: a stale answer and no outage", target.connection, q.path)
	}
	if err := target.history.judge(q, answer); err != nil {
		l.complain("%s %s: %v", target.connection, q.path, err)
	}
}
