// Package archtest holds the tests of the rules that the compiler and the linters cannot see: which
// part of the project may import what (see docs/packages.md), and that no test sleeps on the
// real clock. A direction that only a page describes is gone after a year. The package has no code
// of its own.
package archtest
