package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

const (
	// defaultTimeout is longer than a connection's own (10 s), so that the sidecar can say what is
	// wrong with Vault.
	defaultTimeout = 15 * time.Second
	// maxBatch is how many references one BatchResolve takes.
	maxBatch = 256
	// longestPath is the longest reference that the sidecar takes, in bytes.
	longestPath = 1024
)

// Option changes one call.
type Option func(*call)

// call is what the options of one call come to. It is comparable, for it is a key.
type call struct {
	connection, project, key string
	version                  uint32
	maxAge, maxStale         bound
	timeout                  time.Duration
	keep                     bool
}

// bound is a duration that may be missing.
type bound struct {
	set bool
	is  time.Duration
}

func (b bound) proto() *durationpb.Duration {
	if !b.set {
		return nil
	}
	return durationpb.New(b.is)
}

// Connection names the connection of references that do not name their own. It may be left out
// while the sidecar has exactly one.
func Connection(name string) Option { return func(c *call) { c.connection = name } }

// Project is the id of the project that asks, for connections that belong to projects.
func Project(id string) Option { return func(c *call) { c.project = id } }

// Key names the key in the secret, for keys that hold a slash. The reference is then the secret
// alone.
func Key(key string) Option { return func(c *call) { c.key = key } }

// Version asks for one version of a secret; 0, as without it, for the latest.
func Version(number uint32) Option { return func(c *call) { c.version = number } }

// Fresh makes the sidecar read Vault now, whatever it has in its cache.
func Fresh() Option { return func(c *call) { c.maxAge = bound{set: true} } }

// MaxStale bounds what an outage of Vault may add to the age of a copy. With 0 no stale copy is
// taken.
func MaxStale(longest time.Duration) Option {
	return func(c *call) { c.maxStale = bound{set: true, is: longest} }
}

// Timeout bounds the call, retries included; 15 s where neither it nor the context's deadline does.
func Timeout(longest time.Duration) Option { return func(c *call) { c.timeout = longest } }

func optionsOf(options []Option) (o call) {
	for _, set := range options {
		set(&o)
	}
	return o
}

// limit bounds ctx.
func (o call) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	longest := o.timeout
	if _, bounded := ctx.Deadline(); longest <= 0 && !bounded {
		longest = defaultTimeout
	}
	if longest <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, longest)
}

// lookup is one reference as it is asked for. It is comparable: equal ones have one answer.
type lookup struct {
	connection, path, project, key string
	version                        uint32
	maxAge, maxStale               bound
}

// lookup joins a reference, stored or not, and the options.
func (o call) lookup(reference string) (lookup, *Error) {
	l := lookup{o.connection, reference, o.project, o.key, o.version, o.maxAge, o.maxStale}
	connection, path, stored := StoredReference(reference)
	switch {
	case stored && connection == "":
		return l, refused(ErrConnectionRequired, reference,
			"the stored reference names no connection: it has to be {{connection|ap_sep_v1|path}}")
	case stored && o.connection != "" && o.connection != connection:
		return l, refused(ErrInvalidRequest, reference,
			"the stored reference names another connection than the call: leave the call's out")
	case stored:
		l.connection, l.path = connection, path
	}
	return l, l.fits(reference)
}

// fits refuses what the sidecar would refuse, and gRPC together with the rest of its batch.
func (l lookup) fits(reference string) *Error {
	for _, text := range []string{l.connection, l.path} {
		switch {
		case !utf8.ValidString(text):
			return refused(ErrInvalidPath, strings.ToValidUTF8(reference, "\ufffd"),
				"the reference is not valid UTF-8")
		case len(text) > longestPath:
			return refused(ErrInvalidPath,
				strings.ToValidUTF8(reference[:min(64, len(reference))], "")+"…",
				fmt.Sprintf("the reference is too long: it has at most %d bytes", longestPath))
		}
	}
	return nil
}

// refused is an error that needed no sidecar.
func refused(why reason, reference, message string) *Error {
	return &Error{Reason: string(why), Message: message, Reference: reference}
}

func (l lookup) request() *secretsidecarv1.ResolveRequest {
	return &secretsidecarv1.ResolveRequest{
		Connection: l.connection, Path: l.path, ProjectId: l.project, Key: l.key,
		Version: l.version,
		MaxAge:  l.maxAge.proto(), MaxStale: l.maxStale.proto(),
	}
}

// Get returns the value of a reference. The error is an *Error.
func (c *Client) Get(ctx context.Context, reference string, options ...Option) (string, error) {
	secret, err := c.GetSecret(ctx, reference, options...)
	if err != nil {
		return "", err
	}
	return secret.Value(), nil
}

// GetSecret returns the value of a reference and what the sidecar knows of it. The error is an
// *Error.
func (c *Client) GetSecret(ctx context.Context, reference string,
	options ...Option) (*Secret, error) {
	o := optionsOf(options)
	l, failed := o.lookup(reference)
	if failed != nil {
		return nil, failed
	}
	if kept := c.keptFor(ctx, l); kept != nil {
		return kept, nil
	}
	ctx, cancel := o.limit(ctx)
	defer cancel()
	secret, failed := c.resolve(ctx, l)
	if failed != nil {
		failed.Reference = reference
		return nil, failed
	}
	return secret, nil
}

// keptFor returns what the near cache has for a call that may still be answered; nil for nothing.
func (c *Client) keptFor(ctx context.Context, l lookup) *Secret {
	if c.near == nil || ctx.Err() != nil || c.isClosed() {
		return nil
	}
	return c.near.get(l)
}

func (c *Client) resolve(ctx context.Context, l lookup) (secret *Secret, failed *Error) {
	generation := c.near.generation()
	failed = c.try(ctx, func() error {
		answer, err := c.api.Resolve(ctx, l.request())
		if err == nil {
			secret = secretOf(answer)
		}
		return err
	})
	if failed != nil {
		return nil, failed
	}
	c.near.keep(l, secret, generation)
	return secret, nil
}

// GetAll returns the values of several references under the names that they have in the map. It
// asks for each distinct reference once, 256 at a time. When any fails it returns no value and a
// *BatchError that names each that did, or an *Error when no reference could be asked for.
func (c *Client) GetAll(ctx context.Context, references map[string]string,
	options ...Option) (map[string]string, error) {
	o := optionsOf(options)
	ctx, cancel := o.limit(ctx)
	defer cancel()
	values, failed, err := c.all(ctx, o, references)
	switch {
	case err != nil:
		return nil, err
	case len(failed) > 0:
		return nil, &BatchError{Failed: failed}
	}
	return values, nil
}

// all returns the value or the error of each reference, by name. err is of a call as a whole; with
// o.keep each of its references has it instead.
func (c *Client) all(ctx context.Context, o call,
	references map[string]string) (values map[string]string, failed map[string]*Error, err error) {
	values, failed = make(map[string]string, len(references)), map[string]*Error{}
	names := map[lookup][]string{}
	for name, reference := range references {
		l, err := o.lookup(reference)
		if err != nil {
			failed[name] = err
			continue
		}
		names[l] = append(names[l], name)
	}
	answers, problem := c.many(ctx, names, o.keep)
	if problem != nil {
		return nil, nil, problem
	}
	for l, answer := range answers {
		for _, name := range names[l] {
			if answer.failed == nil {
				values[name] = answer.secret.Value()
				continue
			}
			one := *answer.failed
			one.Reference = references[name]
			failed[name] = &one
		}
	}
	return values, failed, nil
}

// outcome is what became of one lookup: exactly one of the two is there.
type outcome struct {
	secret *Secret
	failed *Error
}

// many looks distinct references up. What fails a call fails all, or with each the call's
// references.
func (c *Client) many(ctx context.Context, wanted map[lookup][]string,
	each bool) (map[lookup]outcome, *Error) {
	outcomes := make(map[lookup]outcome, len(wanted))
	var missing []lookup
	for l := range wanted {
		if kept := c.keptFor(ctx, l); kept != nil {
			outcomes[l] = outcome{secret: kept}
			continue
		}
		missing = append(missing, l)
	}
	for some := range slices.Chunk(missing, maxBatch) {
		failed := c.batch(ctx, some, outcomes)
		if failed != nil && (!each || errors.Is(failed, context.Canceled)) {
			return nil, failed
		}
		if failed != nil {
			failRest(some, outcomes, failed)
		}
	}
	return outcomes, nil
}

// failRest gives a failure to those that have no secret.
func failRest(wanted []lookup, outcomes map[lookup]outcome, failed *Error) {
	for _, l := range wanted {
		if outcomes[l].secret == nil {
			outcomes[l] = outcome{failed: failed}
		}
	}
}

// batch looks up to maxBatch references up, and retries those that failed for a moment while ctx
// leaves time.
func (c *Client) batch(ctx context.Context, wanted []lookup, outcomes map[lookup]outcome) *Error {
	for {
		if failed := c.batchOnce(ctx, wanted, outcomes); failed != nil {
			return failed
		}
		again, wait := failedForNow(ctx, wanted, outcomes)
		if len(again) == 0 || !pause(ctx, wait) {
			return nil
		}
		wanted = again
	}
}

func (c *Client) batchOnce(ctx context.Context, wanted []lookup,
	outcomes map[lookup]outcome) *Error {
	request := &secretsidecarv1.BatchResolveRequest{}
	for _, l := range wanted {
		request.Requests = append(request.Requests, l.request())
	}
	generation := c.near.generation()
	var results []*secretsidecarv1.BatchResolveResult
	failed := c.try(ctx, func() error {
		answer, err := c.api.BatchResolve(ctx, request)
		results = answer.GetResults()
		return err
	})
	if failed != nil {
		return failed
	}
	if len(results) != len(wanted) {
		return &Error{Message: "the sidecar answered another batch than was asked for: are " +
			"client and sidecar of one version?"}
	}
	for i, l := range wanted {
		outcomes[l] = c.itemOutcome(ctx, l, results[i], len(wanted), generation)
	}
	return nil
}

// itemOutcome reads one item's answer. An item that did not fit into the batch's answer is asked
// for alone.
func (c *Client) itemOutcome(ctx context.Context, l lookup,
	result *secretsidecarv1.BatchResolveResult, of int, generation uint64) outcome {
	said := result.GetError()
	switch {
	case said == nil:
		secret := secretOf(result.GetSecret())
		c.near.keep(l, secret, generation)
		return outcome{secret: secret}
	case said.GetReason() == string(ErrSecretTooLarge) && of > 1:
		secret, failed := c.resolve(ctx, l)
		return outcome{secret, failed}
	}
	return outcome{failed: itemError(said)}
}

// failedForNow returns the references whose answer says that they may succeed while ctx leaves
// time, and after how long all of them may.
func failedForNow(ctx context.Context, wanted []lookup,
	outcomes map[lookup]outcome) (again []lookup, wait time.Duration) {
	until, bounded := ctx.Deadline()
	for _, l := range wanted {
		failed := outcomes[l].failed
		if failed == nil || failed.RetryAfter <= 0 || bounded &&
			time.Until(until) <= failed.RetryAfter {
			continue
		}
		again = append(again, l)
		wait = max(wait, failed.RetryAfter)
	}
	return again, wait
}
