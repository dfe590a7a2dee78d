//go:build race

package e2e_test

// withRaceDetector says that these tests, and so the binary that they drive, run with the race
// detector.
const withRaceDetector = true
