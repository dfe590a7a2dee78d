package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// history knows every version of every secret that a test has written to one Vault. It judges
// answers by that, and so finds a wrong value, one that is too old, and one of another secret. It
// is safe for concurrent use.
type history struct {
	name  string // part of every value, so that the histories of two Vaults share none
	vault writable

	// readTakes is how long before Vault looks at it a read may have begun: the timeout of the
	// load's connection, and some more.
	readTakes time.Duration

	writing sync.RWMutex // held for reading by a write, for writing by a restore

	mu sync.Mutex
	// by API path, oldest first; guarded by mu, what they point to too
	secrets map[string][]*written
	// when the last Invalidate of a path that has returned was called; guarded by mu
	fences  map[string]time.Time
	restore period // the last one; guarded by mu
}

// writable is a Vault, or a cluster of them.
type writable interface {
	Try(method, path string, body any) (vaulttest.Answer, error)
}

// period is from one moment to another.
type period struct{ from, to time.Time }

func (p period) holds(t time.Time) bool { return !t.Before(p.from) && !t.After(p.to) }

// written is one version of a secret.
type written struct {
	number uint32 // 0 when nobody knows, because Vault's answer never came
	base   string // what every value of this version begins with
	acked  time.Time
	gone   time.Time // when a restore had taken it away; zero when none has
}

// keys are those of every secret in a history.
var keys = []string{"key", "other"}

func (w *written) value(key string) string { return w.base + "/" + key }

func newHistory(name string, v writable) *history {
	return &history{name: name, vault: v, secrets: map[string][]*written{},
		fences: map[string]time.Time{}}
}

// write makes a new version. An error means that Vault may have it or not.
func (l *history) write(path string) error {
	l.writing.RLock()
	defer l.writing.RUnlock()
	one := l.begin(path)
	data := map[string]any{}
	for _, key := range keys {
		data[key] = one.value(key)
	}
	answer, err := l.vault.Try(http.MethodPost, path, map[string]any{"data": data})
	if err != nil {
		return err
	}
	if answer.Status != http.StatusOK {
		return fmt.Errorf("write %s: %d %s", path, answer.Status, answer.Text)
	}
	body, _ := answer.Body["data"].(map[string]any)
	number, _ := body["version"].(json.Number)
	version, err := number.Int64()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	one.number, one.acked = uint32(version), time.Now() // #nosec G115 -- a test writes a few thousand
	return nil
}

// begin notes a version that is about to be written.
func (l *history) begin(path string) *written {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := &written{base: fmt.Sprintf("%s:%s:%d", l.name, path, len(l.secrets[path]))}
	l.secrets[path] = append(l.secrets[path], one)
	return one
}

// point is a moment to which a Vault can be put back.
func (l *history) point() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	lengths := map[string]int{}
	for path, versions := range l.secrets {
		lengths[path] = len(versions)
	}
	return lengths
}

// putBack puts the Vault back to a point. Nothing is written meanwhile. A read that overlaps with
// it may return what was there before or after.
func (l *history) putBack(to map[string]int, restore func()) {
	l.writing.Lock()
	defer l.writing.Unlock()
	began := time.Now()
	restore()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restore = period{from: began.Add(-l.readTakes), to: time.Now()}
	for path, versions := range l.secrets {
		for _, one := range versions[to[path]:] {
			one.gone = l.restore.to
		}
	}
}

// mayLag calls do. Until do has returned, and readTakes before, Vault may answer with older
// versions. Nothing is written meanwhile.
func (l *history) mayLag(do func()) { l.putBack(l.point(), do) }

// fenced notes that an Invalidate has returned, and when it was called.
func (l *history) fenced(path string, called time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fences[path] = called
}

// fence returns when the last Invalidate of a path was called, of those that have returned.
func (l *history) fence(path string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fences[path]
}

// question is one reference that was asked for.
type question struct {
	path, key string
	began     time.Time
	notBefore time.Time     // the fence that was up when it was asked
	maxAge    time.Duration // of a copy that counts as fresh
	maxStale  time.Duration // on top of the ttl, in an outage
	ttl       time.Duration
}

// judge returns what is wrong with an answer, or nil.
func (l *history) judge(q question, answer *secretsidecarv1.ResolveResponse) error {
	fetched := answer.GetFetchedAt().AsTime()
	age := q.began.Sub(fetched)
	limit := min(q.ttl, q.maxAge)
	if answer.GetSource() == stale {
		limit = q.ttl + q.maxStale
	}
	switch {
	case age > limit:
		return fmt.Errorf("%v is %v old, %v at most is allowed", answer.GetSource(), age, limit)
	case fetched.Before(q.notBefore):
		return fmt.Errorf("%v was read at %v, before the Invalidate of %v", answer.GetSource(),
			fetched,
			q.notBefore)
	case fetched.After(time.Now()):
		return fmt.Errorf("fetched_at %v is in the future", fetched)
	}
	return l.judgeValue(q, answer, fetched)
}

// judgeValue compares value and version with what was written.
func (l *history) judgeValue(q question, answer *secretsidecarv1.ResolveResponse,
	fetched time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	versions := l.secrets[q.path]
	at := slices.IndexFunc(versions,
		func(w *written) bool { return w.value(q.key) == answer.GetValue() })
	if at < 0 {
		return fmt.Errorf("%q was never written to %s/%s", answer.GetValue(), q.path, q.key)
	}
	one := versions[at]
	if l.restore.holds(fetched) {
		return nil
	}
	switch {
	case one.number != 0 && one.number != answer.GetVersion():
		return fmt.Errorf("%q is version %d, the answer says %d", answer.GetValue(), one.number,
			answer.GetVersion())
	case !one.gone.IsZero() && fetched.After(one.gone):
		return fmt.Errorf("%q was read at %v, and is gone since %v", answer.GetValue(), fetched,
			one.gone)
	}
	for _, later := range versions[at+1:] {
		wasThere := !later.acked.IsZero() && later.acked.Before(fetched) &&
			(later.gone.IsZero() || fetched.Before(later.gone))
		if wasThere && (one.gone.IsZero() || one.gone.After(fetched)) {
			return fmt.Errorf("%q was read at %v, though %q was there since %v", answer.GetValue(),
				fetched,
				later.base, later.acked)
		}
	}
	return nil
}
