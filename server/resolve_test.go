package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

func TestResolveAnswersWithTheValueAndWhereItCameFrom(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"api_key": "supersecret", "empty": "", "number": 1, "list": []any{"a", true}, "none": nil, "a/b": "slash"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})

	for _, test := range []struct {
		name, path, key, value string
		kind                   secretsidecarv1.ValueType
	}{
		{"a string is verbatim", "secret/data/mysec/api_key", "", "supersecret", secretsidecarv1.ValueType_VALUE_TYPE_STRING},
		{"the empty string is a value", "secret/data/mysec/empty", "", "", secretsidecarv1.ValueType_VALUE_TYPE_STRING},
		{"a number is JSON", "secret/data/mysec/number", "", "1", secretsidecarv1.ValueType_VALUE_TYPE_JSON},
		{"a list is JSON", "secret/data/mysec/list", "", `["a",true]`, secretsidecarv1.ValueType_VALUE_TYPE_JSON},
		{"null is JSON", "secret/data/mysec/none", "", "null", secretsidecarv1.ValueType_VALUE_TYPE_JSON},
		{"a key with a slash needs the key field", "secret/data/mysec", "a/b", "slash", secretsidecarv1.ValueType_VALUE_TYPE_STRING},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: test.path, Key: test.key, Connection: "prod"})
			if err != nil {
				t.Fatal(err)
			}
			if answer.GetValue() != test.value || answer.GetValueType() != test.kind || answer.GetVersion() != 1 {
				t.Errorf("got %v", answer)
			}
			if life := answer.GetExpiresAt().AsTime().Sub(answer.GetFetchedAt().AsTime()); life > time.Hour || life < 54*time.Minute {
				t.Errorf("expires after %v, want the ttl less up to 10 %%", life)
			}
			if age := time.Since(answer.GetVersionCreatedAt().AsTime()); age < 0 || age > time.Minute {
				t.Errorf("created %v ago", age)
			}
		})
	}
	if reads := v.count("GET /v1/secret/data/mysec"); reads != 1 {
		t.Errorf("six keys of one secret cost %d reads, want 1", reads)
	}
}

func TestARequestThatIsWrongIsToldWhy(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"api_key": "supersecret"})
	project := v.connection("mine")
	project.Scope, project.ProjectIDs = server.ScopeProject, []string{"p1"}
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod"), project}})

	const good = "secret/data/mysec/api_key"
	minus := durationpb.New(-time.Second)
	for _, test := range []struct {
		name    string
		request *secretsidecarv1.ResolveRequest
		code    codes.Code
		reason  string
	}{
		{"an empty path", &secretsidecarv1.ResolveRequest{Connection: "prod"}, codes.InvalidArgument, "INVALID_PATH"},
		{"traversal", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/../../sys/mounts"}, codes.InvalidArgument, "INVALID_PATH"},
		{"a giant path", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/" + strings.Repeat("x", 2000) + "/k"}, codes.InvalidArgument, "INVALID_PATH"},
		{"Vault's own mounts", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "sys/data/a/b"}, codes.InvalidArgument, "INVALID_PATH"},
		{"encoded dots are literal and legal", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/x/%2e%2e/y"}, codes.NotFound, "SECRET_NOT_FOUND"},
		{"a negative max_age", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: good, MaxAge: minus}, codes.InvalidArgument, "INVALID_REQUEST"},
		{"a negative max_stale", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: good, MaxStale: minus}, codes.InvalidArgument, "INVALID_REQUEST"},
		{"an invalid duration", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: good, MaxAge: &durationpb.Duration{Seconds: 1, Nanos: -1}}, codes.InvalidArgument, "INVALID_REQUEST"},
		{"an unknown connection", &secretsidecarv1.ResolveRequest{Connection: "dev", Path: good}, codes.NotFound, "CONNECTION_NOT_FOUND"},
		{"no connection where there are two", &secretsidecarv1.ResolveRequest{Path: good}, codes.InvalidArgument, "CONNECTION_REQUIRED"},
		{"no project on a project's connection", &secretsidecarv1.ResolveRequest{Connection: "mine", Path: good}, codes.PermissionDenied, "PROJECT_REQUIRED"},
		{"another project", &secretsidecarv1.ResolveRequest{Connection: "mine", Path: good, ProjectId: "p2"}, codes.PermissionDenied, "PROJECT_NOT_ALLOWED"},
		{"an unknown secret", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/none/api_key"}, codes.NotFound, "SECRET_NOT_FOUND"},
		{"an unknown key", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/mysec/none"}, codes.NotFound, "KEY_NOT_FOUND"},
		{"a version that never was", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: good, Version: 9}, codes.NotFound, "SECRET_NOT_FOUND"},
		{"a mount outside the policy", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "other/data/a/b"}, codes.PermissionDenied, "VAULT_PERMISSION_DENIED"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := s.Resolve(t.Context(), test.request)
			wantProblem(t, err, test.code, test.reason)
		})
	}
}

func TestACallerOfOneConnectionHasToNameItAmongTwo(t *testing.T) {
	v := newVault(t)
	uid := uint32(os.Getuid()) // #nosec G115 -- uids fit
	s := start(t, server.Settings{
		Connections: []server.Connection{v.connection("prod"), v.connection("other")},
		Callers:     []server.CallerRule{{UID: &uid, Connections: []string{"prod"}}},
	})
	_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k"})
	wantProblem(t, err, codes.InvalidArgument, "CONNECTION_REQUIRED")
	_, err = s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k", Connection: "absent"})
	wantProblem(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
}

func TestARequestOverOneMebibyteIsRefused(t *testing.T) {
	v := newVault(t)
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: strings.Repeat("x", 1<<20)})
	if code := codeOf(err); code != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

func TestManyCallersOfAColdSecretCostOneRead(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"api_key": "supersecret"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})

	var group sync.WaitGroup
	for range 1000 {
		group.Go(func() { resolveNow(t, s, "secret/data/mysec/api_key") })
	}
	group.Wait()
	if reads := v.count("GET /v1/secret/data/mysec"); reads != 1 {
		t.Errorf("1,000 callers cost %d reads, want 1", reads)
	}
	answer, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/api_key", MaxAge: durationpb.New(0)})
	if err != nil || answer.GetSource() != secretsidecarv1.Source_SOURCE_VAULT {
		t.Fatalf("max_age=0: %v %v", answer, err)
	}
	if reads := v.count("GET /v1/secret/data/mysec"); reads != 2 {
		t.Errorf("max_age=0 made it %d reads, want 2", reads)
	}
}

func TestAnOutageServesStaleCopiesAndFailsFastWithoutOne(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"api_key": "supersecret"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	s.resolve(t, "secret/data/mysec/api_key")
	v.answerInstead(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"errors":["Vault is sealed"]}`))
		return true
	})
	now := durationpb.New(0)

	stale, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/api_key", MaxAge: now})
	if err != nil || stale.GetSource() != secretsidecarv1.Source_SOURCE_STALE || stale.GetValue() != "supersecret" {
		t.Errorf("with a copy: %v %v", stale, err)
	}
	_, err = s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/api_key", MaxAge: now, MaxStale: now})
	wantProblem(t, err, codes.Unavailable, "VAULT_SEALED")
	_, err = s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/other/api_key"})
	wantProblem(t, err, codes.Unavailable, "VAULT_SEALED")
	if fresh := s.resolve(t, "secret/data/mysec/api_key"); fresh.GetSource() != secretsidecarv1.Source_SOURCE_CACHE {
		t.Errorf("a fresh copy came as %v", fresh.GetSource())
	}
	if state := s.status(t, "prod"); state.GetState() != secretsidecarv1.ConnectionState_CONNECTION_STATE_DEGRADED || state.GetLastError().GetReason() != "VAULT_SEALED" {
		t.Errorf("state %v", state)
	}
}

func TestNoCopyIsKeptBeyondTheDeletionThatVaultHasAnnounced(t *testing.T) {
	for name, test := range map[string]struct {
		in    time.Duration
		reads int // by three requests
	}{
		"deleted within the ttl":                 {10 * time.Minute, 1},
		"deleted already, if our clock is right": {-10 * time.Minute, 3},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
			deletion := time.Now().Add(test.in)
			v.answers(http.StatusOK, fmt.Sprintf(`{"data":{"data":{"k":"value"},"metadata":{"version":1,"deletion_time":%q}}}`,
				deletion.UTC().Format(time.RFC3339Nano)))
			for range 3 {
				answer := s.resolve(t, "secret/data/mysec/k")
				if end := answer.GetExpiresAt().AsTime(); answer.GetValue() != "value" || !end.Equal(deletion) {
					t.Errorf("got %v, expires at %v, want %v", answer, end, deletion)
				}
			}
			if reads := v.count("GET /v1/secret/data/mysec"); reads != test.reads {
				t.Errorf("%d reads, want %d", reads, test.reads)
			}
		})
	}
}

func TestAFreshReadDoesNotQueueBehindOneThatHangs(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": "v"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	hangs, release := make(chan struct{}), make(chan struct{})
	var reads atomic.Int32
	v.answerInstead(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1/secret/") && reads.Add(1) == 1 {
			close(hangs)
			waitFor(t, release)
		}
		return false
	})
	old := make(chan string, 1)
	go func() { old <- resolveNow(t, s, "secret/data/mysec/k") }()
	<-hangs
	fresh, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k", MaxAge: durationpb.New(0)})
	if err != nil || fresh.GetSource() != secretsidecarv1.Source_SOURCE_VAULT {
		t.Fatalf("got %v, %v", fresh, err)
	}
	if got := <-old; got != "v" { // it has the later read's answer; its own still hangs
		t.Errorf("the first caller got %q", got)
	}
	close(release)
}

// The promise: a request that arrives after Invalidate has returned is never answered from a Vault
// read that began before the call. Vault is slowed down between reading and answering, so that each
// round's Invalidate falls into a read.
func TestInvalidateFencesReadsInFlight(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 50
	}
	v := newVault(t)
	held := make(chan chan struct{})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	v.write(t, "secret/data/warm", map[string]any{"k": "v"})
	s.resolve(t, "secret/data/warm/k")
	v.answerInstead(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v1/secret/data/mysec") {
			return false
		}
		recorded := httptest.NewRecorder()
		v.Vault.ServeHTTP(recorded, r) // Vault has read the value; its answer is held back
		release := make(chan struct{})
		select {
		case held <- release:
			waitFor(t, release)
		case <-t.Context().Done():
		}
		_, _ = w.Write(recorded.Body.Bytes())
		return true
	})

	for round := range rounds {
		fenceRound(t, v, s, held, round)
	}
}

func fenceRound(t *testing.T, v *frontedVault, s *sidecar, held chan chan struct{}, round int) {
	t.Helper()
	const path = "secret/data/mysec/k"
	old, fresh := fmt.Sprintf("old-%d", round), fmt.Sprintf("new-%d", round)
	v.write(t, "secret/data/mysec", map[string]any{"k": old})

	before := make(chan string, 1)
	go func() { before <- resolveNow(t, s, path) }()
	releaseOld := <-held // the old value is on its way
	v.write(t, "secret/data/mysec", map[string]any{"k": fresh})
	request := &secretsidecarv1.InvalidateRequest{Path: []string{path, "secret/data/", ""}[round%3]}
	if _, err := s.Invalidate(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	after := make(chan string, 1)
	go func() { after <- resolveNow(t, s, path) }()
	releaseNew := <-held // the second read has begun: the first was not joined
	close(releaseOld)
	if got := <-before; got != old {
		t.Fatalf("round %d: who asked before got %q, want %q", round, got, old)
	}
	close(releaseNew)
	if got := <-after; got != fresh {
		t.Fatalf("round %d: who asked after Invalidate got %q, want %q", round, got, fresh)
	}
	if got := s.resolve(t, path).GetValue(); got != fresh {
		t.Fatalf("round %d: the old read's late result was stored: got %q", round, got)
	}
	if _, err := s.Invalidate(t.Context(), request); err != nil {
		t.Fatal(err)
	}
}

func resolveNow(t *testing.T, s *sidecar, path string) string {
	answer, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: path})
	if err != nil {
		t.Errorf("Resolve: %v", err)
	}
	return answer.GetValue()
}

func TestTheCallersDeadlineIsItsOwnAndTheReadGoesOn(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": "v"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	release := make(chan struct{})
	v.answerInstead(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1/secret/") {
			waitFor(t, release)
		}
		return false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k"})
	if code := codeOf(err); code != codes.DeadlineExceeded {
		t.Fatalf("got %v", err)
	}
	close(release)
	s.resolve(t, "secret/data/mysec/k")
	if reads := v.count("GET /v1/secret/data/mysec"); reads != 1 {
		t.Errorf("%d reads, want the first one to have gone on", reads)
	}
}

func TestALoopOnADeniedSecretCostsVaultAReadASecond(t *testing.T) {
	v := newVault(t)
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	request := &secretsidecarv1.ResolveRequest{Path: "private/data/payroll/k"}
	began := time.Now()
	const asked = 500
	for range asked {
		_, err := s.Resolve(t.Context(), request)
		wantProblem(t, err, codes.PermissionDenied, "VAULT_PERMISSION_DENIED")
	}
	// The first denial costs a fresh login, and is read again with its token.
	most := 2 + int(time.Since(began)/time.Second)
	if reads := v.count("GET /v1/private/"); reads > most {
		t.Errorf("%d reads in %v, want at most %d", reads, time.Since(began), most)
	}
	if n := logins(v); n > 2 {
		t.Errorf("%d logins", n)
	}
	counts := s.status(t, "prod").GetResolves()
	if counts.GetErrors() != asked || counts.GetNegative() != 0 {
		t.Errorf("counted %v, want %d errors", counts, asked)
	}

	reads := v.count("GET /v1/private/")
	fresh := &secretsidecarv1.ResolveRequest{Path: request.GetPath(), MaxAge: durationpb.New(0)}
	_, err := s.Resolve(t.Context(), fresh)
	wantProblem(t, err, codes.PermissionDenied, "VAULT_PERMISSION_DENIED")
	if v.count("GET /v1/private/") == reads {
		t.Error("max_age=0s is answered from memory")
	}
}
