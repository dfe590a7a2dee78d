//go:build !race

package leak

// corpusBytes is how much log is read for values.
const corpusBytes = 100_000_000
