// Package login is where tokens come from. A Source logs in to one Vault by AppRole, keeps the
// token alive, and takes up new credentials. A Budget bounds what all Sources and connection tests
// of a process may cost an AppRole.
//
// What it promises:
//
//   - There is always the best token to be had. A new one is taken before the old one is revoked, a
//     failed renewal never ends a token, and new credentials are rehearsed by a login before they
//     replace the old ones.
//   - No role is locked. Vault locks an AppRole for everybody after five wrong logins, so the
//     Budget counts every login of the process by what Vault counts, and leaves rejected
//     credentials alone.
//   - Callers share. Everybody who rejects the same token, or asks for a new login at the same
//     time, gets the outcome of one login.
//
// How it works. One goroutine, the actor (actor.go), owns everything that changes, and publishes it
// as one immutable State (state.go), so readers need no lock. The credential files are watched;
// what they hold is judged without asking Vault (credential.go).
package login
