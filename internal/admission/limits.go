package admission

import (
	"math"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Limits bound what one user may take, and what all users that no rule lists may take together.
type Limits struct {
	// Connections of one user. One user never has more than are left for all others either.
	Connections int
	// Streams of one user, on all its connections together.
	Streams int
}

const (
	mostConnections = 1024
	mostStreams     = 32_768
	// A connection takes up to 64 kB for its buffers. A stream takes up to 25 kB: 9 kB and its
	// headers, or what a request takes that waits for Vault.
	connectionBytes = 64 << 10
	streamBytes     = 25 << 10
	// However little memory there is, a worker can work.
	fewestConnections = 64
	fewestStreams     = 512
)

// LimitsWithin returns the limits for a process that may take so many bytes of memory: an eighth of
// it for the connections of one user, a quarter for its streams.
func LimitsWithin(memory int64) Limits {
	return Limits{
		Connections: clamp(memory/8/connectionBytes, fewestConnections, mostConnections),
		Streams:     clamp(memory/4/streamBytes, fewestStreams, mostStreams),
	}
}

func clamp(n int64, least, most int) int { return int(min(max(n, int64(least)), int64(most))) }

// MemoryLimit returns Go's memory limit, which follows that of the control group.
func MemoryLimit() int64 { return debug.SetMemoryLimit(-1) }

const (
	// reservedDescriptors are for Vault, files and probes, and never for callers.
	reservedDescriptors = 128
	// reservedPart is the part of all descriptors that is reserved where that is less.
	reservedPart = 4
)

// descriptorsForCallers returns how many connections the process may have, by its limit now.
func descriptorsForCallers() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return mostConnections
	}
	return int(forCallers(min(limit.Cur, math.MaxInt32))) // #nosec G115 -- bounded
}

func forCallers(limit uint64) uint64 {
	return limit - min(reservedDescriptors, limit/reservedPart)
}
