// Package server answers the gRPC API of secret-sidecar on a Unix socket. It translates between the
// API and the rooms below: gRPC codes and error reasons exist here, and in no room below.
//
// What becomes of a request:
//
//   - Its caller must be within its limits (caller_limits.go) and its rules (authorize.go).
//   - It takes one immutable snapshot of the settings (session.go), so that a reload never changes
//     them under it. Apply makes a snapshot the running one (apply.go). A connection whose login
//     settings changed serves on until its successor has logged in (takeover.go).
//   - The cache answers it, or reads Vault for it (resolve.go, batch.go). Which errors allow an old
//     copy is decided in staleness.go.
//   - It ends as an outcome: a secret or a problem (errors.go). record (record.go) tells the audit
//     log, the counters, the log and the span.
//
// Metrics are read from the counters when somebody exports (metrics.go, counters.go).
package server
