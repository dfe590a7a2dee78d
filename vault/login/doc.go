// Package login is where tokens come from. A Source logs in to one Vault by AppRole, keeps the
// token alive, and takes up new credentials. One goroutine owns everything that changes, and
// publishes it as one immutable State, so readers need no lock. A Budget bounds what all Sources
// and connection tests of a process may cost an AppRole, which Vault locks for everybody after five
// wrong logins.
package login
