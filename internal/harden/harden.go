// Package harden makes the process a poorer target, and fits it into the memory that it was given.
//
// The cache holds secrets in plain memory, and Go cannot wipe a string. So the ways out of that
// memory are closed instead, as far as the operating system allows:
//
//   - Process closes those that cost nothing: core files, debuggers of the same user, setuid
//     children.
//   - LockMemory and RestrictFiles close swap and the file system. They can fail where the machine
//     lacks something, and a program can need what they take away, so the configuration asks for
//     them.
//   - LimitMemory and PaceGC are about size. The limit is the container's, which Go does not look
//     up by itself. The pace keeps a small heap from costing a tenth of the CPU in garbage
//     collections.
//
// None of it is a reason not to start. Each protection is a Step that says whether it is in force,
// and the caller logs it or, if told to, refuses to run.
package harden

// Step is one protection that Process tried.
type Step struct {
	// Name of the protection, for a log line.
	Name string
	// Err is why it is not in force; nil when it is.
	Err error
}

// Process applies the protections that need no configuration and returns what it tried; outside
// Linux that is nothing. Call it once, before anything else and before other goroutines run.
func Process() []Step { return process() }
