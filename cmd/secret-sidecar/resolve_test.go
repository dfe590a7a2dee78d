package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

func TestOnlyAStaleAnswerIsWarnedOf(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	const warning = "secret-sidecar: warning: Vault is out, this copy was read 1h30m0s ago " +
		"(2030-01-02T01:34:05Z): " +
		"add --max-stale 0s to refuse stale copies\n"
	for source, want := range map[secretsidecarv1.Source]string{
		secretsidecarv1.Source_SOURCE_VAULT: "", secretsidecarv1.Source_SOURCE_CACHE: "",
		secretsidecarv1.Source_SOURCE_STALE: warning,
	} {
		var said strings.Builder
		warnIfStale(&said, &secretsidecarv1.ResolveResponse{Source: source,
			FetchedAt: timestamppb.New(now.Add(-90 * time.Minute))}, now)
		if said.String() != want {
			t.Errorf("%v: got %q, want %q", source, said.String(), want)
		}
	}
}
