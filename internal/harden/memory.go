package harden

import "runtime/debug"

// LimitMemory tells the garbage collector to stay within 90 % of the control group's memory limit, and returns
// that many bytes. It does nothing and returns 0 when GOMEMLIMIT is set, for then the runtime already obeys it,
// and when no limit is known.
func LimitMemory(getenv func(string) (string, bool)) int64 {
	if text, _ := getenv("GOMEMLIMIT"); text != "" {
		return 0
	}
	limit := cgroupMemoryLimit() / 10 * 9
	if limit > 0 {
		debug.SetMemoryLimit(limit)
	}
	return limit
}

// gcPercent makes the heap grow by three quarters between two garbage collections, not double. A sidecar's memory counts
// once for each worker; `make bench` shows that a call does not get dearer by as much as it measures.
const gcPercent = 75

// TrimHeap makes the garbage collector run somewhat more often than Go's default, unless GOGC says how often.
func TrimHeap(getenv func(string) (string, bool)) {
	if text, _ := getenv("GOGC"); text == "" {
		debug.SetGCPercent(gcPercent)
	}
}
