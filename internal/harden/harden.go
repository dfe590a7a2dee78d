// Package harden makes the process a poorer target: a secret that the cache holds should not leave it through a
// core file, a debugger of the same user, or a privileged child. Memory is not wiped: Go strings cannot be.
package harden

// Step is one protection that Process tried.
type Step struct {
	// Name of the protection, for a log line.
	Name string
	// Err is why it could not be had; nil when it is in force.
	Err error
}

// Process applies every protection that the operating system offers and returns what it tried; none outside
// Linux. A protection that fails is no reason not to run: the caller logs it. Call it once, first thing in the
// process, before other goroutines run.
func Process() []Step { return process() }
