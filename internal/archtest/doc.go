// Package archtest holds the tests of how the project's packages may depend on each other, the import directions
// of docs/architecture.md, and of rules that a linter cannot see. It has no code of its own.
package archtest
