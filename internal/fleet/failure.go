package fleet

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	// ErrUnreachable is wrapped by the errors of a Redis that cannot be used now. Their texts say why
	// and what to do, and quote nothing that Redis says.
	ErrUnreachable = errors.New("the fleet's Redis cannot be used")
	// ErrTooMany means that more is to be told than the stream should carry.
	ErrTooMany = errors.New("too many invalidations for the fleet")
	// ErrInvalid means that the others would ignore it.
	ErrInvalid = errors.New("the connection's name or the path is too long, or no UTF-8")

	errPassword = errors.New("read the password file")
)

// causes are the first words of Redis's errors, and what to say instead.
var causes = map[string]string{
	"NOAUTH":      "it asks for a password: set password_file",
	"WRONGPASS":   "it refuses the user or the password: correct the URL's user or password_file",
	"NOPERM":      "the user lacks a permission: give it those of docs/fleet.md",
	"READONLY":    "it is a replica: name the primary, or Sentinels with master_name",
	"LOADING":     "it is loading its data: it passes",
	"MASTERDOWN":  "its primary is away",
	"OOM":         "it is out of memory: raise maxmemory",
	"MISCONF":     "it cannot save its data: see its log",
	"WRONGTYPE":   "the key is no stream: choose another name for the stream",
	"MOVED":       "it is a node of a cluster: name at least two nodes, the second as ?addr=HOST:PORT",
	"CLUSTERDOWN": "the cluster serves nobody now",
}

// unusable says why Redis cannot be used, in our words: the library's may hold an address, a user
// or what another program has written.
func unusable(err error) error {
	return &failure{cause: causeOf(err), err: err}
}

// failure keeps the library's error for errors.Is and shows the cause alone.
type failure struct {
	cause string
	err   error
}

func (f *failure) Error() string { return ErrUnreachable.Error() + ": " + f.cause }

func (f *failure) Unwrap() []error { return []error{ErrUnreachable, f.err} }

func causeOf(err error) string {
	if reply, ok := errors.AsType[redis.Error](err); ok {
		word, _, _ := strings.Cut(reply.Error(), " ")
		if known := causes[word]; known != "" {
			return known
		}
		return "it answers with an error: see its log"
	}
	if _, isDNS := errors.AsType[*net.DNSError](err); isDNS {
		return "its name has no address: check the URL and the DNS"
	}
	failed, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errPassword):
		return "password_file cannot be read: make it readable"
	case errors.Is(err, context.DeadlineExceeded), isNet && failed.Timeout():
		return "it does not answer in time"
	case errors.Is(err, context.Canceled):
		return "the wait for it was cancelled"
	}
	return "there is no connection: check the URL, the network and Redis itself"
}
