// Package server answers the gRPC API of secret-sidecar on a Unix socket. It checks each request, authorises
// the caller, asks the cache, hands the cache a Vault read for what it does not hold, and translates errors:
// gRPC codes and error reasons exist here and nowhere below.
package server
