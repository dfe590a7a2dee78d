package harden

import "runtime/debug"

// LimitMemory tells the garbage collector to stay within 90 % of the control group's memory limit,
// and returns that many bytes. It does nothing and returns 0 when no limit is known, and when
// GOMEMLIMIT is set: the runtime obeys that already.
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
