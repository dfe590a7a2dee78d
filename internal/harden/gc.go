package harden

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

const (
	// heapFloor is what the heap may always grow to. While little is cached, Go would collect
	// garbage after every 4 MB allocated, which takes a tenth of a busy sidecar's CPU.
	heapFloor = 16 << 20
	// leastGCPercent is how much a larger heap may grow, in percent of what is in use. Go's default
	// of 100 takes more memory, and every worker of a fleet pays for a sidecar's.
	leastGCPercent = 50
	// changeWorth is how far the percentage must be off before it is set anew, which stops the
	// world for some microseconds.
	changeWorth = 10
)

// PaceGC sets after each garbage collection how much the heap may grow until the next one, as long
// as the process lives. It does nothing when GOGC is set, and starts no goroutine. Call it once.
func PaceGC(getenv func(string) (string, bool)) {
	if text, _ := getenv("GOGC"); text != "" {
		return
	}
	p := &gcPacer{}
	p.percent.Store(100) // Go's own, until now
	p.pace()
}

// gcPacer sets the percentage. The runtime calls it, one call after the other.
type gcPacer struct{ percent atomic.Int64 }

// pace sets the percentage, and leaves a sentinel that nothing uses: the next garbage collection
// finds it and calls pace again.
func (p *gcPacer) pace() {
	wanted := gcPercent(readHeap())
	now := p.percent.Load()
	isFarOff := wanted > now+changeWorth || wanted < now-changeWorth
	if isFarOff || wanted == leastGCPercent && now != wanted {
		debug.SetGCPercent(int(wanted))
		p.percent.Store(wanted)
	}
	// A sentinel holds a pointer, because Go packs small objects without pointers into one, which
	// lives as long as any of them.
	type sentinel struct{ _ *sentinel }
	runtime.AddCleanup(&sentinel{}, func(p *gcPacer) { p.pace() }, p)
}

// heapUse is what garbage collection goes by, in bytes.
type heapUse struct {
	live  uint64 // found in use by the last one
	roots uint64 // stacks and globals
}

func readHeap() heapUse {
	read := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"},
	}
	metrics.Read(read)
	return heapUse{
		live:  read[0].Value.Uint64(),
		roots: read[1].Value.Uint64() + read[2].Value.Uint64(),
	}
}

// gcPercent returns the GOGC with which the heap may grow to heapFloor, or by leastGCPercent where
// that is more. Go adds that share of the heap in use and of the roots to the heap in use; see
// https://go.dev/doc/gc-guide#GOGC.
func gcPercent(use heapUse) int64 {
	if use.live >= heapFloor {
		return leastGCPercent
	}
	growth := 100 * (heapFloor - use.live) / max(use.live+use.roots, 1<<20)
	return max(leastGCPercent, int64(growth)) // #nosec G115 -- 1,600 at most
}
