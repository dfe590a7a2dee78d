package client_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/client"
	"github.com/secret-sidecar/secret-sidecar/client/clienttest"
)

func stored(reference string) string { return "{{prod|ap_sep_v1|" + reference + "}}" }

func TestAnObjectComesBackWithItsReferencesReplacedAndNothingElseTouched(t *testing.T) {
	c, sidecar := clienttest.New(t, map[string]string{reference: value, "secret/data/b/k": "other"})
	now := time.Now()
	object := map[string]any{
		"auth":  map[string]any{"token": stored(reference), "user": "alice", "empty": "", "none": nil},
		"list":  []any{stored("secret/data/b/k"), 1.5, true, []any{" " + stored(reference) + "\n"}},
		"names": map[string]string{"k": stored(reference)}, "texts": []string{"plain", stored(reference)},
		"not": "Bearer " + stored(reference), "time": now, "bytes": []byte("raw"), "nil map": map[string]any(nil), "empty list": []any{},
	}
	got, err := c.ResolveObject(t.Context(), object)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"auth":  map[string]any{"token": value, "user": "alice", "empty": "", "none": nil},
		"list":  []any{"other", 1.5, true, []any{value}},
		"names": map[string]string{"k": value}, "texts": []string{"plain", value},
		"not": "Bearer " + stored(reference), "time": now, "bytes": []byte("raw"), "nil map": map[string]any(nil), "empty list": []any{},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if object["auth"].(map[string]any)["token"] != stored(reference) {
		t.Error("the object itself was changed")
	}
	if asked := sidecar.Asked(reference); asked > 2 {
		t.Errorf("the reference was asked for %d times: once for each way of writing it", asked)
	}
}

func TestAnObjectWhoseReferencesFailNamesTheirPlaces(t *testing.T) {
	c, _ := clienttest.New(t, map[string]string{reference: value})
	object := map[string]any{"a/b": []any{stored("secret/data/x/missing"), stored(reference)},
		"t~": stored("secret/data/x/missing")}
	got, err := c.ResolveObject(t.Context(), object)
	failed, ok := errors.AsType[*client.BatchError](err)
	if got != nil || !ok {
		t.Fatalf("got %v, %v", got, err)
	}
	if places := slices.Sorted(maps.Keys(failed.Failed)); !slices.Equal(places,
		[]string{"/a~1b/0", "/t~0"}) {
		t.Errorf("the places are %q", places)
	}
	got, err = c.ResolveObject(t.Context(), object, client.KeepFailed())
	want := map[string]any{"a/b": []any{stored("secret/data/x/missing"), value},
		"t~": stored("secret/data/x/missing")}
	if !reflect.DeepEqual(got, want) || !errors.Is(err, client.ErrSecretNotFound) {
		t.Errorf("kept: %v, %v", got, err)
	}
}

func TestAnObjectThatHoldsItselfIsRefused(t *testing.T) {
	c, _ := clienttest.New(t, map[string]string{reference: value})
	loop := map[string]any{}
	loop["in"] = []any{map[string]any{"it": loop}}
	if _, err := c.ResolveObject(t.Context(), loop); !errors.Is(err, client.ErrCycle) {
		t.Errorf("a map in itself: %v", err)
	}
	list := make([]any, 1)
	list[0] = list
	if _, err := c.ResolveObject(t.Context(), list); !errors.Is(err, client.ErrCycle) {
		t.Errorf("a list in itself: %v", err)
	}
	shared := map[string]any{"k": stored(reference)}
	got, err := c.ResolveObject(t.Context(), []any{shared, shared})
	if err != nil || !reflect.DeepEqual(got,
		[]any{map[string]any{"k": value}, map[string]any{"k": value}}) {
		t.Errorf("a map that stands in two places: %v, %v", got, err)
	}
}

func TestAnObjectMayShareItsParts(t *testing.T) {
	c, _ := clienttest.New(t, map[string]string{reference: value})
	wide := map[string]any{"k": stored(reference)}
	for range 60 {
		wide = map[string]any{"a": wide, "b": []any{wide}}
	}
	got, err := c.ResolveObject(t.Context(), wide)
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		got = got.(map[string]any)["b"].([]any)[0]
	}
	if !reflect.DeepEqual(got, map[string]any{"k": value}) {
		t.Errorf("the innermost is %v", got)
	}
	list := []any{stored(reference), nil}
	list[1] = list[:1]
	got, err = c.ResolveObject(t.Context(), list)
	if err != nil || !reflect.DeepEqual(got, []any{value, []any{value}}) {
		t.Errorf("a list that holds its own beginning: %v, %v", got, err)
	}
}

func TestAnObjectOfManyReferencesIsResolvedInBatchesThatTheSidecarTakes(t *testing.T) {
	secrets, object := map[string]string{}, []any{}
	for i := range 1200 {
		one := fmt.Sprintf("secret/data/app/%d", i%600)
		secrets[one] = fmt.Sprint("value ", i%600)
		object = append(object, map[string]any{"deep": []any{stored(one)}})
	}
	c, sidecar := clienttest.New(t, secrets)
	got, err := c.ResolveObject(t.Context(), object)
	if err != nil {
		t.Fatal(err)
	}
	for i, one := range got.([]any) {
		if one.(map[string]any)["deep"].([]any)[0] != fmt.Sprint("value ", i%600) {
			t.Fatalf("the object's %d is %v", i, one)
		}
	}
	for one := range secrets {
		if asked := sidecar.Asked(one); asked != 1 {
			t.Errorf("%s was asked for %d times", one, asked)
		}
	}
}

func TestTheCopyOfAnObjectIsTheCallersOwn(t *testing.T) {
	c, _ := clienttest.New(t, nil)
	object := map[string]any{"map": map[string]any{}, "list": []any{"a"}, "texts": []string{"a"},
		"names": map[string]string{}}
	got, err := c.ResolveObject(t.Context(), object)
	if err != nil {
		t.Fatal(err)
	}
	copied := got.(map[string]any)
	copied["map"].(map[string]any)["new"] = 1
	copied["list"].([]any)[0] = "b"
	copied["texts"].([]string)[0] = "b"
	copied["names"].(map[string]string)["new"] = "b"
	want := map[string]any{"map": map[string]any{}, "list": []any{"a"}, "texts": []string{"a"},
		"names": map[string]string{}}
	if !reflect.DeepEqual(object, want) {
		t.Errorf("the object became %v", object)
	}
}

func TestWithKeepASidecarThatIsAwayLeavesEveryReference(t *testing.T) {
	c, err := client.Open(t.Context(), client.Socket(shortDir(t)+"/none"), client.Wait(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // it was used
	object := map[string]any{"a": stored(reference), "b": "text"}
	got, err := c.ResolveObject(t.Context(), object, client.KeepFailed(),
		client.Timeout(100*time.Millisecond))
	failed, ok := errors.AsType[*client.BatchError](err)
	if !ok || !reflect.DeepEqual(got, any(object)) ||
		!errors.Is(failed.Failed["/a"], client.ErrSidecarUnreachable) {
		t.Errorf("kept: %v, %v", got, err)
	}
	got, err = c.ResolveObject(t.Context(), object, client.Timeout(100*time.Millisecond))
	if got != nil || !errors.Is(err, client.ErrSidecarUnreachable) {
		t.Errorf("not kept: %v, %v", got, err)
	}
}

func TestADeepObjectIsResolved(t *testing.T) {
	c, _ := clienttest.New(t, map[string]string{reference: value})
	var object any = stored(reference)
	for range 100_000 {
		object = []any{object}
	}
	got, err := c.ResolveObject(t.Context(), object)
	if err != nil {
		t.Fatal(err)
	}
	for range 100_000 {
		got = got.([]any)[0]
	}
	if got != value {
		t.Errorf("the innermost is %v", got)
	}
}

// Any object comes back as a plain walk over it says, which shares no code with the client.
func TestAnyObjectIsResolvedAsAPlainWalkSays(t *testing.T) {
	secrets := map[string]string{}
	for i := range 40 {
		secrets[fmt.Sprintf("secret/data/s%d/key", i)] = fmt.Sprint("value ", i)
	}
	c, sidecar := clienttest.New(t, secrets)
	asked := map[string]int{}
	for seed := range uint64(200) {
		object := randomObject(rand.New(rand.NewPCG(seed, 0)), 6)
		got, err := c.ResolveObject(t.Context(), object)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for one := range secrets {
			if more := sidecar.Asked(one) - asked[one]; more > 1 {
				t.Errorf("seed %d: %s was asked for %d times", seed, one, more)
			}
			asked[one] = sidecar.Asked(one)
		}
		if want := plainly(object, secrets); !reflect.DeepEqual(got, want) {
			t.Errorf("seed %d:\ngot  %v\nwant %v", seed, got, want)
		}
	}
}

func randomObject(r *rand.Rand, depth int) any {
	kind := r.IntN(8)
	if depth == 0 {
		kind %= 6
	}
	switch kind {
	case 0, 1:
		return strings.Repeat(" ", r.IntN(2)) +
			stored(fmt.Sprintf("secret/data/s%d/key", r.IntN(40)))
	case 2:
		return "text " + stored("secret/data/s1/key")
	case 3:
		return r.Float64()
	case 4:
		return nil
	case 5:
		return []any{[]byte{1}, time.Unix(1, 0), struct{ Text string }{stored("secret/data/s1/key")}, true}[r.IntN(4)]
	case 6:
		list := make([]any, r.IntN(4))
		for i := range list {
			list[i] = randomObject(r, depth-1)
		}
		return list
	}
	object := map[string]any{}
	for range r.IntN(4) {
		object[fmt.Sprint("~/", r.IntN(9))] = randomObject(r, depth-1)
	}
	return object
}

func plainly(object any, secrets map[string]string) any {
	switch object := object.(type) {
	case string:
		for reference, secret := range secrets {
			if strings.TrimSpace(object) == stored(reference) {
				return secret
			}
		}
	case []any:
		list := make([]any, 0, len(object))
		for _, one := range object {
			list = append(list, plainly(one, secrets))
		}
		return list
	case map[string]any:
		replaced := map[string]any{}
		for name, one := range object {
			replaced[name] = plainly(one, secrets)
		}
		return replaced
	}
	return object
}
