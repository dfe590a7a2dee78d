package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

var (
	invalidPath    = failure{codes.InvalidArgument, "INVALID_PATH"}
	invalidRequest = failure{codes.InvalidArgument, "INVALID_REQUEST"}
	unreachable    = failure{codes.Unavailable, "VAULT_UNREACHABLE"}
)

func TestUnusualReferencesReachVaultUnchanged(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSandbox(t)
		g := s.newProxy(v)
		r := s.start("--config", s.config(s.newLogin(v, nil,
			readSecrets+` path "team/*" { capabilities = ["read"] }`).connection("prod",
			g.address)))
		v.Mount(t, "team/kv", "kv", "2")
		for _, path := range []string{
			"team/kv/data/app", "secret/data/x/%2e%2e/y", "secret/data/with space",
			"secret/data/what?list=true", "secret/data/a#b",
			"secret/data/100%", "secret/data/schlüssel/日本", "secret/data/team/data/inner",
			"secret/data/a;b=c&d+e",
		} {
			value := s.newSecret()
			s.writeSecret(v, path, "key", value)
			r.value(path+"/key", value, fromVault)
			if g.count(path) != 1 {
				t.Errorf("%s did not reach Vault as it is", path)
			}
		}
		t.Run("a key with a slash, the empty string, and JSON as Vault sent it",
			func(t *testing.T) {
				s, r := s.in(t), r.in(t)
				// Vault itself rounds what a float64 cannot hold
				number := json.RawMessage(`9007199254740991`)
				v.WriteSecret(t, "secret/data/odd",
					map[string]any{"tls/key": s.keep("slashed-value"), "empty": "", "null": nil,
						"number": number})
				r.answer(&secretsidecarv1.ResolveRequest{Path: "secret/data/odd", Key: "tls/key"},
					"slashed-value", fromVault)
				if empty := r.value("secret/data/odd/empty", "",
					fromCache); empty.GetValueType() != secretsidecarv1.ValueType_VALUE_TYPE_STRING {
					t.Errorf("the empty string has type %v", empty.GetValueType())
				}
				if null := r.value("secret/data/odd/null", "null",
					fromCache); null.GetValueType() != secretsidecarv1.ValueType_VALUE_TYPE_JSON {
					t.Errorf("null has type %v", null.GetValueType())
				}
				r.value("secret/data/odd/number", string(number), fromCache)
			})
	})
}

func TestBadRequestsAreRefusedWithTheFieldsAtFault(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	login := s.defaultLogin(v)
	r := s.start("--config", s.config(
		login.connection("one", v.Address),
		login.connection("two", v.Address, "scope: project", "project_ids: [p1]"),
	))
	good := &secretsidecarv1.ResolveRequest{Path: "secret/data/app/key", Connection: "one"}
	resolve := func(change func(*secretsidecarv1.ResolveRequest)) error {
		request := &secretsidecarv1.ResolveRequest{Path: good.GetPath(),
			Connection: good.GetConnection()}
		change(request)
		_, err := r.Resolve(t.Context(), request)
		return err
	}
	batch := func(size int) error {
		request := &secretsidecarv1.BatchResolveRequest{}
		for range size {
			request.Requests = append(request.Requests, good)
		}
		_, err := r.BatchResolve(t.Context(), request)
		return err
	}
	for name, test := range map[string]struct {
		err  error
		want failure
	}{
		"no connection with two": {resolve(func(q *secretsidecarv1.ResolveRequest) { q.Connection = "" }),
			failure{codes.InvalidArgument, "CONNECTION_REQUIRED"}},
		"an unknown connection": {resolve(func(q *secretsidecarv1.ResolveRequest) { q.Connection = "three" }),
			failure{codes.NotFound, "CONNECTION_NOT_FOUND"}},
		"a negative max_age":   {resolve(func(q *secretsidecarv1.ResolveRequest) { q.MaxAge = durationpb.New(-time.Second) }), invalidRequest},
		"a negative max_stale": {resolve(func(q *secretsidecarv1.ResolveRequest) { q.MaxStale = durationpb.New(-1) }), invalidRequest},
		"a duration that is none": {resolve(func(q *secretsidecarv1.ResolveRequest) {
			q.MaxAge = &durationpb.Duration{Seconds: 1, Nanos: -1}
		}), invalidRequest},
		"a project connection without a project": {resolve(func(q *secretsidecarv1.ResolveRequest) { q.Connection = "two" }),
			failure{codes.PermissionDenied, "PROJECT_REQUIRED"}},
		"a project connection with another project": {resolve(func(q *secretsidecarv1.ResolveRequest) {
			q.Connection, q.ProjectId = "two", "p2"
		}), failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		"a project connection with its project": {resolve(func(q *secretsidecarv1.ResolveRequest) {
			q.Connection, q.ProjectId = "two", "p1"
		}), failure{codes.NotFound, "SECRET_NOT_FOUND"}},
		"a batch of 0":   {batch(0), invalidRequest},
		"a batch of 257": {batch(257), invalidRequest},
		"fleet": {second(r.Invalidate(t.Context(),
			&secretsidecarv1.InvalidateRequest{Fleet: true})), invalidRequest},
		"Invalidate of a traversal": {second(r.Invalidate(t.Context(),
			&secretsidecarv1.InvalidateRequest{Path: "secret/../"})),
			invalidPath},
		"a test without a target": {second(r.TestConnection(t.Context(),
			&secretsidecarv1.TestConnectionRequest{})), invalidRequest},
		"a test of an address that is none": {second(r.TestConnection(t.Context(),
			&secretsidecarv1.TestConnectionRequest{
				Target: &secretsidecarv1.TestConnectionRequest_Spec{Spec: &secretsidecarv1.ConnectionSpec{Address: "ftp://x", RoleId: "r"}},
			})), invalidRequest},
		"a test of an unknown connection": {second(r.TestConnection(t.Context(),
			&secretsidecarv1.TestConnectionRequest{
				Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: "three"},
			})), failure{codes.NotFound, "CONNECTION_NOT_FOUND"}},
	} {
		t.Run(name, func(t *testing.T) { requireFailure(t, s.in(t), test.err, test.want) })
	}
	t.Run("a batch of 256 is answered", func(t *testing.T) {
		if err := batch(256); err != nil {
			t.Error(err)
		}
	})
	t.Run("a watch of nothing is refused", func(t *testing.T) {
		watch, err := r.Watch(t.Context(), &secretsidecarv1.WatchRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		if codeOf(err) != codes.InvalidArgument {
			t.Errorf("Watch answers %v", err)
		}
	})
	t.Run("invalid UTF-8 is refused by gRPC", func(t *testing.T) {
		err := r.channel.Invoke(t.Context(), "/secretsidecar.v1.SecretService/Resolve",
			rawMessage{0x12, 2, 0xff, 0xfe}, &rawMessage{}, rawCodec())
		if codeOf(err) != codes.Internal {
			t.Errorf("a path that is not valid UTF-8 is answered %v", err)
		}
	})
}

// second drops the answer of a call that has to fail.
func second[Answer any](_ Answer, err error) error { return err }

func TestWhatVaultRefusesHasItsOwnReason(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		s := newSandbox(t)
		v.Mount(t, "old", "kv", "1")
		others := v.Name == "real" // the development Vault has KV engines only
		if others {
			v.Mount(t, "other", "transit", "")
		}
		const policy = `
			path "secret/data/+" { capabilities = ["read"] }
			path "secret/data/forbidden" { capabilities = ["deny"] }
			path "old/*" { capabilities = ["read"] }
			path "other/*" { capabilities = ["read"] }`
		r := s.start("--config", s.config(s.newLogin(v, nil, policy).connection("prod", v.Address)))
		for _, name := range []string{"present", "deleted", "destroyed", "forbidden"} {
			s.writeSecret(v, "secret/data/"+name, "key", s.newSecret())
		}
		s.asRoot(v, http.MethodDelete, "secret/data/deleted", nil)
		s.asRoot(v, http.MethodPut, "secret/destroy/destroyed",
			map[string]any{"versions": []int{1}})
		v.WriteSecret(t, "secret/data/hollow", nil)
		if status, _ := v.Do(t, http.MethodPost, "old/data/app",
			map[string]any{"key": s.newSecret()}); status/100 != 2 {
			t.Fatalf("write to the KV v1 mount: %d", status)
		}

		for name, test := range map[string]struct {
			request *secretsidecarv1.ResolveRequest
			want    failure
		}{
			"an absent secret": {&secretsidecarv1.ResolveRequest{Path: "secret/data/absent/key"},
				failure{codes.NotFound, "SECRET_NOT_FOUND"}},
			"an absent key": {&secretsidecarv1.ResolveRequest{Path: "secret/data/present/absent"},
				failure{codes.NotFound, "KEY_NOT_FOUND"}},
			"an absent version": {&secretsidecarv1.ResolveRequest{Path: "secret/data/present/key",
				Version: 7}, failure{codes.NotFound, "SECRET_NOT_FOUND"}},
			"a deleted secret": {&secretsidecarv1.ResolveRequest{Path: "secret/data/deleted/key"},
				failure{codes.NotFound, "VERSION_DELETED"}},
			"a destroyed secret": {&secretsidecarv1.ResolveRequest{Path: "secret/data/destroyed/key"},
				failure{codes.NotFound, "VERSION_DESTROYED"}},
			"null data": {&secretsidecarv1.ResolveRequest{Path: "secret/data/hollow/key"},
				failure{codes.NotFound, "KEY_NOT_FOUND"}},
			"a forbidden secret": {&secretsidecarv1.ResolveRequest{Path: "secret/data/forbidden/key"},
				failure{codes.PermissionDenied, "VAULT_PERMISSION_DENIED"}},
			"a KV v1 mount": {&secretsidecarv1.ResolveRequest{Path: "old/data/app/key"},
				failure{codes.FailedPrecondition, "NOT_KV_V2"}},
			"a KV v1 mount, absent": {&secretsidecarv1.ResolveRequest{Path: "old/data/absent/key"},
				failure{codes.FailedPrecondition, "NOT_KV_V2"}},
		} {
			t.Run(name, func(t *testing.T) {
				_, err := r.Resolve(t.Context(), test.request)
				requireFailure(t, s.in(t), err, test.want)
			})
		}
		if others {
			t.Run("another engine", func(t *testing.T) {
				_, err := r.resolve("other/data/app/key")
				requireFailure(t, s.in(t), err, failure{codes.FailedPrecondition, "NOT_KV_V2"})
			})
		}
	})
}

func TestAProxyInFrontOfVaultThatBreaksAnswersIsAnOutage(t *testing.T) {
	t.Parallel()
	var stolen atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter,
		*http.Request) {
		stolen.Add(1)
	}))
	t.Cleanup(elsewhere.Close)

	answers := []struct {
		name   string
		answer http.HandlerFunc
		want   failure
	}{
		{"HTML with 200", text(http.StatusOK, "<html>Welcome</html>"), unreachable},
		{"HTML with 403", text(http.StatusForbidden, "<html>Blocked by policy</html>"), unreachable},
		{"HTML with 404", text(http.StatusNotFound, "<html>Not found</html>"), unreachable},
		{"an empty body with 200", text(http.StatusOK, ""), unreachable},
		{"JSON that is cut off", text(http.StatusOK, `{"data": {"data": {"key": "se`), unreachable},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}, unreachable},
		{"429", text(http.StatusTooManyRequests, `{"errors":["the big quota"]}`),
			failure{codes.Unavailable, "VAULT_RATE_LIMITED"}},
		{"500", text(http.StatusInternalServerError, `{"errors":["internal"]}`), unreachable},
		{"502", text(http.StatusBadGateway, "<html>Bad gateway</html>"), unreachable},
		{"503", text(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`),
			failure{codes.Unavailable, "VAULT_SEALED"}},
		{"no answer", func(w http.ResponseWriter, _ *http.Request) { drop(w) }, unreachable},
		{"5 MiB", fiveMebibytes, failure{codes.ResourceExhausted, "SECRET_TOO_LARGE"}},
	}

	s := newSandbox(t)
	v := vaulttest.Dev(t)
	login := s.defaultLogin(v)
	var connections []string
	for i, one := range answers {
		g := s.newProxy(v)
		g.answerWith(func(path string) http.HandlerFunc {
			if strings.HasPrefix(path, "secret/data/") {
				return one.answer
			}
			return nil
		})
		connections = append(connections, login.connection(fmt.Sprintf("c%d", i), g.address))
	}
	r := s.start("--config", s.config(connections...))
	for i, one := range answers {
		t.Run(one.name, func(t *testing.T) {
			_, err := r.Resolve(t.Context(),
				&secretsidecarv1.ResolveRequest{Path: "secret/data/app/key",
					Connection: fmt.Sprintf("c%d", i)})
			requireFailure(t, s.in(t), err, one.want)
		})
	}
	if stolen.Load() != 0 {
		t.Error("a redirect was followed to another host")
	}
	for _, phrase := range []string{"Blocked by policy", "Bad gateway", "the big quota"} {
		if r.logs(`"level":"INFO"`, phrase) || r.logs(`"level":"WARN"`, phrase) ||
			r.logs(`"level":"ERROR"`, phrase) {
			t.Errorf("the log repeats %q of the other side", phrase)
		}
	}
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func fiveMebibytes(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w,
		`{"data":{"data":{"key":"%s"},"metadata":{"version":1,"created_time":"2026-01-01T00:00:00Z","deletion_time":"","destroyed":false}}}`,
		strings.Repeat("x", 5<<20))
}
