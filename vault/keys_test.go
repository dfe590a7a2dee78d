package vault

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unsafe"
)

// secretWithKeys is Vault's answer with a secret of so many keys, which no other round has.
func secretWithKeys(count, round int) string {
	var fields strings.Builder
	for i := range count {
		fmt.Fprintf(&fields, `,"key-%06d-%06d-%020d":"v"`, round, i, i)
	}
	return `{"data":{"data":{` + fields.String()[1:] + `},"metadata":` + someMetadata + `}}`
}

// heapInUse is what is reachable: one collection frees the rest.
func heapInUse() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc) // #nosec G115 -- far below
}

func TestTheTableOfKeysIsBounded(t *testing.T) {
	table := newKeyTable()
	before := heapInUse()
	for i := range 200_000 {
		table.share(fmt.Sprintf("a-key-that-no-other-secret-has-%020d", i))
		table.share(strings.Repeat("x", 1<<10) + fmt.Sprint(i))
	}
	grown := heapInUse() - before
	if most := int64(sharedKeys * 2 * longestSharedKey); grown > most {
		t.Errorf("%d bytes are in use after 400,000 keys, want %d at most", grown, most)
	}
	runtime.KeepAlive(table)
}

func TestAKeyIsSharedAgainAfterOthersHaveTakenItsPlace(t *testing.T) {
	table := newKeyTable()
	for i := range 4 * sharedKeys {
		table.share(fmt.Sprint(i))
	}
	first := table.share(strings.Clone("api_key"))
	second := table.share(strings.Clone("api_key"))
	if unsafe.StringData(first) != unsafe.StringData(second) {
		t.Error("two secrets have the key twice in memory")
	}
}

func TestSecretsWithTheSameKeysShareThem(t *testing.T) {
	const secrets, keys = 100, 50
	before := heapInUse()
	kept := make([]*Secret, secrets)
	for i := range kept {
		secret, err := readOf(200, secretWithKeys(keys, 0))
		if err != nil {
			t.Fatal(err)
		}
		kept[i] = secret
	}
	grown := heapInUse() - before
	runtime.KeepAlive(kept)
	// A field is 32 bytes, its value a byte in an allocation of 8, its key an allocation of 48.
	if most := int64(secrets * keys * 64); grown > most {
		t.Errorf("%d bytes are in use, want %d at most: each secret has keys of its own", grown,
			most)
	}
}
