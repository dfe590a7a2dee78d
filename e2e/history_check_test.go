package e2e_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

func TestTheHistoryFindsEveryWrongAnswer(t *testing.T) {
	t.Parallel()
	const path, other = "secret/data/a", "secret/data/b"
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	l := newHistory("test", nil)
	for i, acked := range []time.Time{ago(3 * time.Hour), ago(time.Minute), ago(10 * time.Second)} {
		one := l.begin(path)
		one.number, one.acked = uint32(i+1), acked
	}
	l.begin(other).number = 1
	maybe := l.begin(other) // nobody knows whether Vault has it
	older, newer, newest := l.secrets[path][0], l.secrets[path][1], l.secrets[path][2]
	newest.gone = ago(5 * time.Second)
	ask := question{path: path, key: "key", began: now, ttl: 30 * time.Second,
		maxAge: 20 * time.Second, maxStale: time.Hour}
	answer := func(value string, version uint32, source secretsidecarv1.Source,
		fetched time.Time) *secretsidecarv1.ResolveResponse {
		return &secretsidecarv1.ResolveResponse{Value: value, Version: version, Source: source,
			FetchedAt: timestamppb.New(fetched)}
	}
	fenced := ask
	fenced.notBefore = ago(2 * time.Second)
	for _, test := range []struct {
		name   string
		ask    question
		answer *secretsidecarv1.ResolveResponse
		want   string // part of the complaint; empty for none
	}{
		{"the newest at its time is right", ask,
			answer(newest.value("key"), 3, fromCache, ago(8*time.Second)), ""},
		{"an older one read before the next is right", ask,
			answer(older.value("key"), 1, stale, ago(2*time.Minute)), ""},
		{"one that came back by a restore is right", ask,
			answer(newer.value("key"), 2, fromVault, ago(time.Second)), ""},
		{"one that Vault may have or not is right",
			question{path: other, key: "key", began: now, ttl: ask.ttl, maxAge: ask.maxAge},
			answer(maybe.value("key"), 2, fromVault, ago(time.Second)), ""},
		{"a value that was never written", ask, answer("nonsense", 1, fromVault, now), "never written"},
		{"a value of another key", ask, answer(newest.value("other"), 3, fromVault, ago(8*time.Second)),
			"never written"},
		{"a value of another secret", ask, answer(maybe.value("key"), 2, fromVault, now),
			"never written"},
		{"a wrong version", ask, answer(newest.value("key"), 2, fromVault, ago(8*time.Second)),
			"is version 3"},
		{"an old version though a newer one was there", ask,
			answer(newer.value("key"), 2, fromVault, ago(8*time.Second)), "was there since"},
		{"a version that a restore took away", ask,
			answer(newest.value("key"), 3, fromVault, ago(time.Second)), "is gone since"},
		{"a copy past max_age", ask, answer(newer.value("key"), 2, fromCache, ago(25*time.Second)),
			"20s at most"},
		{"a stale copy past ttl and max_stale", ask,
			answer(older.value("key"), 1, stale, ago(2*time.Hour)), "at most is allowed"},
		{"a read from before the fence", fenced,
			answer(newest.value("key"), 3, fromCache, ago(6*time.Second)), "before the Invalidate"},
		{"a read in the future", ask, answer(newer.value("key"), 2, fromVault, now.Add(time.Hour)),
			"in the future"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := l.judge(test.ask, test.answer)
			if (err == nil) != (test.want == "") || err != nil &&
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("judged %v, want %q", err, test.want)
			}
		})
	}
}
