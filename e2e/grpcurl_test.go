package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// foreignClient returns the path of a client that this project did not write, named by an
// environment variable that `make test` sets.
func foreignClient(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" && os.Getenv("SECRET_SIDECAR_REQUIRE_REAL_VAULT") == "1" {
		t.Fatalf("%s is not set; `make test` sets it", variable)
	}
	if path == "" {
		t.Skipf("%s is not set; `make test-fast` sets it", variable)
	}
	return path
}

// grpcurl asks the sandbox's sidecar with grpcurl and returns its answer, which must be a success.
func (s *sandbox) grpcurl(body string, target ...string) string {
	s.t.Helper()
	done := s.grpcurlOutcome(body, target...)
	if done.code != 0 {
		s.t.Fatalf("grpcurl %v: exit %d\n%s%s", target, done.code, done.stdout, done.stderr)
	}
	return done.stdout
}

func (s *sandbox) grpcurlOutcome(body string, target ...string) outcome {
	s.t.Helper()
	args := []string{"-plaintext", "-unix"}
	if body != "" {
		args = append(args, "-d", body)
	}
	args = append(append(args, s.socket()), target...)
	return s.execute(exec.Command(foreignClient(s.t, "GRPCURL"),
		args...)) // #nosec G204 -- named by the Makefile
}

// call asks one method with grpcurl and decodes its JSON answer.
func (s *sandbox) call(method, body string) map[string]any {
	s.t.Helper()
	var answer map[string]any
	text := s.grpcurl(body, "secretsidecar.v1.SecretService/"+method)
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		s.t.Fatalf("%s answered no JSON: %v\n%s", method, err, text)
	}
	return answer
}

func TestGrpcurlNeedsNothingButTheSocket(t *testing.T) {
	t.Parallel()
	foreignClient(t, "GRPCURL")
	s := newSandbox(t)
	v := vaulttest.RealPrivate(t)
	secret := s.newSecret()
	v.WriteSecret(t, "secret/data/mysec", map[string]any{"api_key": secret, "number": 42})
	const policy = readSecrets + ` path "sys/mounts" { capabilities = ["read"] }`
	s.start("--config", s.config(s.newLogin(v, nil, policy).connection("prod", v.Address)))

	t.Run("list and describe", func(t *testing.T) {
		s := s.in(t)
		services := strings.Fields(s.grpcurl("", "list"))
		for _, want := range []string{"secretsidecar.v1.SecretService", "grpc.health.v1.Health"} {
			if !slices.Contains(services, want) {
				t.Errorf("list shows %v, not %s", services, want)
			}
		}
		description := s.grpcurl("", "describe", "secretsidecar.v1.SecretService")
		for _, method := range []string{"Resolve", "BatchResolve", "TestConnection", "Invalidate",
			"ListConnections", "Watch"} {
			if !strings.Contains(description, "rpc "+method+" (") {
				t.Errorf("describe does not show %s:\n%s", method, description)
			}
		}
	})

	t.Run("Resolve, from Vault and then from the cache", func(t *testing.T) {
		s := s.in(t)
		first := s.call("Resolve", `{"path": "secret/data/mysec/api_key"}`)
		want := map[string]any{"value": secret, "valueType": "VALUE_TYPE_STRING", "version": 1.0,
			"source": "SOURCE_VAULT"}
		requireFields(t, first, want)
		requireTimesInOrder(t, first["versionCreatedAt"], first["fetchedAt"], first["expiresAt"])
		second := s.call("Resolve", `{"path": "secret/data/mysec/number", "connection": "prod"}`)
		requireFields(t, second, map[string]any{
			"value": "42", "valueType": "VALUE_TYPE_JSON", "source": "SOURCE_CACHE", "fetchedAt": first["fetchedAt"],
		})
	})

	t.Run("BatchResolve, each item with its own outcome", func(t *testing.T) {
		s := s.in(t)
		batch := s.call("BatchResolve", `{"requests": [
			{"path": "secret/data/mysec/api_key"}, {"path": "secret/data/absent/key"}, {"path": "nonsense"}, {"path": "secret/data/mysec", "key": "number"}]}`)
		results := batch["results"].([]any)
		if len(results) != 4 {
			t.Fatalf("4 requests have %d results", len(results))
		}
		item := func(i int, outcome string) map[string]any {
			found, _ := results[i].(map[string]any)[outcome].(map[string]any)
			return found
		}
		requireFields(t, item(0, "secret"), map[string]any{"value": secret})
		requireFields(t, item(1, "error"),
			map[string]any{"code": 5.0, "reason": "SECRET_NOT_FOUND"})
		requireFields(t, item(2, "error"), map[string]any{"code": 3.0, "reason": "INVALID_PATH"})
		requireFields(t, item(3, "secret"), map[string]any{"value": "42"})
	})

	t.Run("TestConnection", func(t *testing.T) {
		s := s.in(t)
		report := s.call("TestConnection",
			`{"connection": "prod", "path": "secret/data/mysec/api_key"}`)
		requireFields(t, report, map[string]any{"ok": true})
		if version, _ := report["vaultVersion"].(string); !strings.HasPrefix(version, "1.") {
			t.Errorf("Vault's version is %q", version)
		}
		var names []string
		for _, check := range report["checks"].([]any) {
			check := check.(map[string]any)
			names = append(names, check["name"].(string))
			if check["status"] != "CHECK_STATUS_PASSED" {
				t.Errorf("check %v", check)
			}
		}
		if want := []string{"reach", "login", "mounts", "path"}; !slices.Equal(names, want) {
			t.Errorf("checks %v, want %v", names, want)
		}
		if mounts := fmt.Sprint(report["mounts"]); !strings.Contains(mounts,
			"kvVersion:2 path:secret/ type:kv") {
			t.Errorf("the mounts are %s", mounts)
		}
	})

	t.Run("ListConnections", func(t *testing.T) {
		s := s.in(t)
		list := s.call("ListConnections", "")
		requireFields(t, list["connections"].([]any)[0].(map[string]any), map[string]any{
			"name": "prod", "scope": "SCOPE_PLATFORM", "address": v.Address,
			"state": "CONNECTION_STATE_READY", "cachedSecrets": 1.0,
		})
	})

	t.Run("Invalidate", func(t *testing.T) {
		s := s.in(t)
		requireFields(t, s.call("Invalidate", `{"path": "secret/data/mysec/api_key"}`),
			map[string]any{"entries": 1.0})
		requireFields(t, s.call("Resolve", `{"path": "secret/data/mysec/api_key"}`),
			map[string]any{"source": "SOURCE_VAULT"})
	})

	t.Run("an error shows its details", func(t *testing.T) {
		s := s.in(t)
		done := s.grpcurlOutcome(`{"path": "secret/data/absent/key"}`,
			"secretsidecar.v1.SecretService/Resolve")
		for _, want := range []string{"NotFound", "google.rpc.ErrorInfo", "SECRET_NOT_FOUND",
			"secretsidecar"} {
			if !strings.Contains(done.stderr, want) {
				t.Errorf("the error does not show %q:\n%s", want, done.stderr)
			}
		}
		if done.code == 0 {
			t.Error("grpcurl succeeded")
		}
	})
}

func TestGrpcHealthProbeAsksForEveryService(t *testing.T) {
	t.Parallel()
	probe := foreignClient(t, "GRPC_HEALTH_PROBE")
	s := newSandbox(t)
	v := vaulttest.RealPrivate(t)
	s.start("--config", s.config(
		s.defaultLogin(v).connection("good", v.Address),
		s.defaultLogin(v).connection("bad", v.Address, "secret_id: wrong", "required: false"),
	))
	for service, want := range map[string]bool{
		"": true, "secretsidecar.v1.SecretService": true, "liveness": true,
		"connection/good": true, "connection/bad": false, "connection/unknown": false,
	} {
		done := s.execute(exec.Command(probe, "-addr", "unix:"+s.socket(), "-service",
			service)) // #nosec G204 -- named by the Makefile
		if serving := done.code == 0; serving != want {
			t.Errorf("probe of %q: exit %d, want serving %v\n%s", service, done.code, want,
				done.stderr)
		}
	}
}

func requireFields(t *testing.T, got, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
}

func requireTimesInOrder(t *testing.T, texts ...any) {
	t.Helper()
	var before time.Time
	for _, text := range texts {
		text, _ := text.(string)
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || at.Before(before) {
			t.Errorf("times %v: %q is no time or too early (%v)", texts, text, err)
		}
		before = at
	}
}
