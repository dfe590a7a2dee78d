package client_test

import (
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/client"
	"github.com/secret-sidecar/secret-sidecar/client/clienttest"
)

func TestTheNearCacheKeepsAnAnswerUntilItIsInvalidatedOrAskedForFresh(t *testing.T) {
	c, sidecar := clienttest.New(t, map[string]string{reference: "old"},
		client.NearCache(time.Hour))
	get := func(want string, asked int, options ...client.Option) {
		t.Helper()
		got, err := c.Get(t.Context(), reference, options...)
		if err != nil || got != want || sidecar.Asked(reference) != asked {
			t.Errorf("%q, %v, after %d requests; want %q after %d", got, err,
				sidecar.Asked(reference), want, asked)
		}
	}
	get("old", 1)
	get("old", 1)
	sidecar.Set(reference, "new")
	get("old", 1)
	get("new", 2, client.Fresh())
	get("new", 2)
	sidecar.Set(reference, "newest")
	if _, err := c.Invalidate(t.Context(), client.Invalidation{Path: reference}); err != nil {
		t.Fatal(err)
	}
	get("newest", 3)
	get("newest", 4, client.Version(3)) // another question
	all, err := c.GetAll(t.Context(), map[string]string{"one": reference})
	if err != nil || all["one"] != "newest" || sidecar.Asked(reference) != 4 {
		t.Errorf("%v, %v after %d requests", all, err, sidecar.Asked(reference))
	}
}

func TestTheNearCacheGivesNothingOutThatIsTooOld(t *testing.T) {
	c, sidecar := clienttest.New(t, map[string]string{reference: "old"},
		client.NearCache(time.Nanosecond))
	for want := 1; want <= 3; want++ {
		if _, err := c.Get(t.Context(), reference); err != nil || sidecar.Asked(reference) != want {
			t.Errorf("%v after %d requests, want %d", err, sidecar.Asked(reference), want)
		}
	}
}
