package harden

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestTheHeapMayGrowToTheFloorAndByAShare(t *testing.T) {
	for name, test := range map[string]struct {
		use  heapUse
		want int64
	}{
		"nothing known yet":     {heapUse{}, 1600},
		"little in use":         {heapUse{live: 3 << 20, roots: 1 << 20}, 325},
		"half of the floor":     {heapUse{live: 8 << 20}, 100},
		"nearly the floor":      {heapUse{live: 15 << 20}, leastGCPercent},
		"the floor":             {heapUse{live: heapFloor}, leastGCPercent},
		"much more in use":      {heapUse{live: 1 << 30, roots: 1 << 20}, leastGCPercent},
		"many stacks count too": {heapUse{live: 4 << 20, roots: 4 << 20}, 150},
	} {
		if got := gcPercent(test.use); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestGarbageCollectionsArePacedUnlessGOGCIsSet(t *testing.T) {
	const before = 123
	defer debug.SetGCPercent(debug.SetGCPercent(before))
	PaceGC(func(name string) (string, bool) { return "200", name == "GOGC" })
	if percent := currentGCPercent(); percent != before {
		t.Errorf("GOGC became %d although one was given", percent)
	}

	PaceGC(func(string) (string, bool) { return "", false })
	small := currentGCPercent()
	kept := make([]byte, 4*heapFloor)
	deadline := time.After(time.Minute)
	for currentGCPercent() != leastGCPercent {
		runtime.GC() // the cleanup that it causes runs a moment later
		select {
		case <-deadline:
			t.Fatalf("GOGC is %d with %d bytes in use, it was %d before",
				currentGCPercent(), len(kept), small)
		default:
		}
	}
	runtime.KeepAlive(kept)
	if small <= leastGCPercent {
		t.Errorf("GOGC was %d with little in use", small)
	}
}

func currentGCPercent() int {
	const other = 99
	percent := debug.SetGCPercent(other)
	debug.SetGCPercent(percent)
	return percent
}
