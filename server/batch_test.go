package server_test

import (
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

func TestABatchIsItsItems(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"a": "1", "b": "2"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	answer, err := s.BatchResolve(t.Context(), &secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{
		{Path: "secret/data/mysec/a"},
		{Path: "not a reference"},
		{Path: "secret/data/mysec/b"},
		{Path: "secret/data/mysec/none"},
		{Path: "secret/data/mysec/a", MaxAge: durationpb.New(-1)},
		{Path: "secret/data/none/a"},
		{Path: "secret/data/mysec/a", Connection: "none"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"1", "INVALID_PATH", "2", "KEY_NOT_FOUND", "INVALID_REQUEST", "SECRET_NOT_FOUND", "CONNECTION_NOT_FOUND"}
	if len(answer.GetResults()) != len(want) {
		t.Fatalf("%d results, want %d", len(answer.GetResults()), len(want))
	}
	for i, result := range answer.GetResults() {
		got := result.GetSecret().GetValue() + result.GetError().GetReason()
		if got != want[i] {
			t.Errorf("item %d: got %s, want %s", i, got, want[i])
		}
		if result.GetError() != nil && (result.GetError().GetMessage() == "" || result.GetError().GetCode() == int32(codes.OK)) {
			t.Errorf("item %d: error without message or code: %v", i, result.GetError())
		}
	}
}

func TestABatchOfKeysOfOneSecretCostsOneRead(t *testing.T) {
	v := newVault(t)
	data := map[string]any{}
	request := &secretsidecarv1.BatchResolveRequest{}
	for i := range 50 {
		key := "key" + strconv.Itoa(i)
		data[key] = "v"
		request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/" + key})
	}
	v.write(t, "secret/data/mysec", data)
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})

	for wantReads := 1; wantReads <= 3; wantReads++ { // the first fills the cache, the others demand a fresh read
		answer, err := s.BatchResolve(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for i, result := range answer.GetResults() {
			if result.GetSecret().GetValue() != "v" {
				t.Fatalf("item %d: %v", i, result.GetError())
			}
		}
		if reads := v.count("GET /v1/secret/data/mysec"); reads != wantReads {
			t.Errorf("%d reads, want %d", reads, wantReads)
		}
		for _, item := range request.GetRequests() {
			item.MaxAge = durationpb.New(0)
		}
	}
}

func TestABatchOfMixedLimitsCostsOneRead(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"a": "1", "b": "2", "c": "3"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	request := &secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{
		{Path: "secret/data/mysec/a"},
		{Path: "secret/data/mysec/b", MaxAge: durationpb.New(0)},
		{Path: "secret/data/mysec/c", MaxAge: durationpb.New(0), MaxStale: durationpb.New(0)},
	}}
	for wantReads := 1; wantReads <= 2; wantReads++ {
		answer, err := s.BatchResolve(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"1", "2", "3"} {
			if got := answer.GetResults()[i].GetSecret().GetValue(); got != want {
				t.Errorf("item %d: got %q, want %q", i, got, want)
			}
		}
		if reads := v.count("GET /v1/secret/data/mysec"); reads != wantReads {
			t.Errorf("%d reads, want %d", reads, wantReads)
		}
	}
}

func TestABatchOfNoneOrTooManyFailsAsAWhole(t *testing.T) {
	v := newVault(t)
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	for _, size := range []int{0, 257} {
		_, err := s.BatchResolve(t.Context(), &secretsidecarv1.BatchResolveRequest{Requests: make([]*secretsidecarv1.ResolveRequest, size)})
		wantProblem(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	}
	answer, err := s.BatchResolve(t.Context(), &secretsidecarv1.BatchResolveRequest{Requests: make([]*secretsidecarv1.ResolveRequest, 256)})
	if err != nil || len(answer.GetResults()) != 256 {
		t.Errorf("256 items: %v, %d results", err, len(answer.GetResults()))
	}
}

func TestABatchTooLargeForAClientKeepsWhatFits(t *testing.T) {
	v := newVault(t)
	request := &secretsidecarv1.BatchResolveRequest{}
	for i := range 6 {
		path := "secret/data/large" + strconv.Itoa(i)
		v.write(t, path, map[string]any{"k": strings.Repeat("x", 1<<20)})
		request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{Path: path + "/k"})
	}
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	answer, err := s.BatchResolve(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range answer.GetResults() {
		fits := i < 3
		if got := result.GetError().GetReason(); fits != (got == "") || !fits && got != "SECRET_TOO_LARGE" {
			t.Errorf("item %d: %q", i, got)
		}
	}
}
