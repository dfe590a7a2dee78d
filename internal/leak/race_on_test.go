//go:build race

package leak

// corpusBytes is less under the race detector, which is slow.
const corpusBytes = 2_000_000
