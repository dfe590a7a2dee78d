//go:build !race

package e2e_test

// withRaceDetector is true in the other file: where it is false, tests of load measure what users
// run.
const withRaceDetector = false
