package server_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

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

// everyBound asks for one secret with bounds that are all different.
func everyBound(path string) *secretsidecarv1.BatchResolveRequest {
	request := &secretsidecarv1.BatchResolveRequest{}
	bounds := []*durationpb.Duration{nil, durationpb.New(0), durationpb.New(time.Second), durationpb.New(time.Hour)}
	for _, maxAge := range bounds {
		for _, maxStale := range bounds {
			request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{Path: path, MaxAge: maxAge, MaxStale: maxStale})
		}
	}
	return request
}

// answers answers every read in Vault's place.
func (v *frontedVault) answers(status int, body string) {
	v.answerInstead(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v1/secret/") {
			return false
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
		return true
	})
}

func TestItemsOfOneSecretCostTwoReadsAtMostWhateverTheOutcome(t *testing.T) {
	const metadata = `"metadata":{"version":1,"created_time":"2000-01-01T00:00:00Z","deletion_time":"2001-01-01T00:00:00Z","destroyed":false}`
	for name, test := range map[string]struct {
		status int
		body   string
		want   string // the reason of every item, or its value
	}{
		"a value":             {200, `{"data":{"data":{"k":"value"},"metadata":{"version":1}}}`, "value"},
		"a missing secret":    {404, `{"errors":[]}`, "SECRET_NOT_FOUND"},
		"a deleted version":   {404, `{"data":{"data":null,` + metadata + `}}`, "VERSION_DELETED"},
		"a denial":            {403, `{"errors":["permission denied"]}`, "VAULT_PERMISSION_DENIED"},
		"no KV version 2":     {405, `{"errors":["unsupported operation"]}`, "NOT_KV_V2"},
		"a path it refuses":   {400, `{"errors":["malformed"]}`, "INVALID_PATH"},
		"a secret too large":  {200, strings.Repeat(" ", 5<<20) + "{}", "SECRET_TOO_LARGE"},
		"a failure":           {500, `{"errors":["failure"]}`, "VAULT_UNREACHABLE"},
		"an answer of others": {200, `<html>`, "VAULT_UNREACHABLE"},
		"a rate limit":        {429, `{"errors":["slow down"]}`, "VAULT_RATE_LIMITED"},
		"a seal":              {503, `{"errors":["Vault is sealed"]}`, "VAULT_SEALED"},
	} {
		for _, remembers := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				v := newVault(t)
				connection := v.connection("prod")
				if !remembers {
					connection.Policy.NegativeTTL, connection.Policy.TTL = 0, 0
				}
				s := start(t, server.Settings{Connections: []server.Connection{connection}})
				v.answers(test.status, test.body)
				answer, err := s.BatchResolve(t.Context(), everyBound("secret/data/mysec/k"))
				if err != nil {
					t.Fatal(err)
				}
				for i, result := range answer.GetResults() {
					if got := result.GetSecret().GetValue() + result.GetError().GetReason(); got != test.want {
						t.Errorf("item %d: got %s, want %s", i, got, test.want)
					}
				}
				if reads := v.count("GET /v1/secret/data/mysec"); reads > 2 {
					t.Errorf("%d reads, want 2 at most", reads)
				}
			})
		}
	}
}

// In an outage each item gets what it would get alone: the fresh copy, the stale one, or the error.
func TestABatchInAnOutageAnswersEachItemByItsOwnBounds(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": "value"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	s.resolve(t, "secret/data/mysec/k")
	v.answers(http.StatusInternalServerError, `{"errors":["failure"]}`)
	now := durationpb.New(0)
	items := []struct {
		maxAge, maxStale *durationpb.Duration
		want             string
	}{
		{nil, nil, "SOURCE_CACHE"}, {nil, now, "SOURCE_CACHE"}, {now, nil, "SOURCE_STALE"},
		{now, now, "VAULT_UNREACHABLE"}, {now, durationpb.New(time.Minute), "SOURCE_STALE"}, {durationpb.New(time.Hour), now, "SOURCE_CACHE"},
	}
	request := &secretsidecarv1.BatchResolveRequest{}
	for _, item := range items {
		request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{
			Path: "secret/data/mysec/k", MaxAge: item.maxAge, MaxStale: item.maxStale})
	}
	answer, err := s.BatchResolve(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range answer.GetResults() {
		got := result.GetError().GetReason()
		if got == "" {
			got = result.GetSecret().GetSource().String()
		} else if result.GetError().GetRetryDelay().AsDuration() <= 0 {
			t.Errorf("item %d says not when to retry", i)
		}
		if got != items[i].want {
			t.Errorf("item %d: got %s, want %s", i, got, items[i].want)
		}
	}
	if reads := v.count("GET /v1/secret/data/mysec"); reads > 1+2 {
		t.Errorf("%d reads after the first one, want 2 at most", reads-1)
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
	fit := 0
	for i, result := range answer.GetResults() {
		switch got := result.GetError().GetReason(); got {
		case "":
			fit++
		case "SECRET_TOO_LARGE":
		default:
			t.Errorf("item %d: %q", i, got)
		}
	}
	if fit != 3 {
		t.Errorf("%d items of 1 MiB fit, want 3", fit)
	}
}

func TestABatchDoesNotGoOnReadingWhatCannotFit(t *testing.T) {
	const size, items = 900 << 10, 48
	v := newVault(t)
	request := &secretsidecarv1.BatchResolveRequest{}
	value := strings.Repeat("x", size)
	for i := range items {
		path := "secret/data/large" + strconv.Itoa(i)
		v.write(t, path, map[string]any{"k": value})
		request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{Path: path + "/k"})
	}
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	answer, err := s.BatchResolve(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	fit := 0
	for _, result := range answer.GetResults() {
		if result.GetSecret() != nil {
			fit++
		} else if reason := result.GetError().GetReason(); reason != "SECRET_TOO_LARGE" {
			t.Errorf("got %s", reason)
		}
	}
	// Four fit. Another answer's worth may be read in vain, and what had begun by then.
	if reads := v.count("GET /v1/secret/data/large"); fit != 4 || reads > 4+5+16 {
		t.Errorf("%d values fit, of %d that were read", fit, reads)
	}
}

func TestASmallSecretStillFitsBesideLargeOnes(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/small", map[string]any{"k": "value"})
	request := &secretsidecarv1.BatchResolveRequest{}
	for i := range 5 {
		path := "secret/data/large" + strconv.Itoa(i)
		v.write(t, path, map[string]any{"k": strings.Repeat("x", 900<<10)})
		request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{Path: path + "/k"})
	}
	for range 100 {
		request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{Path: "secret/data/small/k"})
	}
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	answer, err := s.BatchResolve(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range answer.GetResults()[5:] {
		if result.GetSecret().GetValue() != "value" {
			t.Errorf("item %d: %v", 5+i, result.GetError())
		}
	}
}
