package main

import (
	"fmt"
	"strconv"
	"strings"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// The benchmark's secrets are called size-BYTES-NUMBER and hold one key. Its value begins with the
// number and has that many bytes, so both ends can check a value without a table.

const (
	mount     = "secret/data/"
	key       = "/key"
	digits    = 7
	usualSize = 256
	usual     = 100 // how many secrets most measurements use
)

func secretName(size, i int) string { return fmt.Sprintf("size-%d-%0*d", size, digits, i) }

// parseName returns the size in a secret's name, and the number as it is written there.
func parseName(name string) (size int, number string, ok bool) {
	rest, isOurs := strings.CutPrefix(name, "size-")
	bytes, number, hasNumber := strings.Cut(rest, "-")
	size, err := strconv.Atoi(bytes)
	return size, number, isOurs && hasNumber && err == nil && len(number) == digits &&
		size >= digits
}

func valueOf(size int, number string) string {
	return number + strings.Repeat("x", size-len(number))
}

// requests returns requests for this many secrets, from number first on.
func requests(connection string, size, first, count int) []*secretsidecarv1.ResolveRequest {
	all := make([]*secretsidecarv1.ResolveRequest, count)
	for i := range all {
		all[i] = &secretsidecarv1.ResolveRequest{Connection: connection,
			Path: mount + secretName(size, first+i) + key}
	}
	return all
}

// isRight reports whether the value belongs to the request.
func isRight(request *secretsidecarv1.ResolveRequest, value string) bool {
	path := request.GetPath()
	end := len(path) - len(key)
	return strings.HasPrefix(value, path[end-digits:end])
}
