// Package login is where tokens come from. A Source logs in to one Vault, keeps the token alive, and takes
// up new credentials; one goroutine owns all that changes, and publishes it as one immutable State. A Budget bounds
// what all Sources and connection tests of a process may cost a role.
package login
