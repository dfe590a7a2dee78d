package server_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

const platformID = "q8Zk3vT0sYbW1xN5mRc7d"

func TestAnAliasIsTheConnectionItself(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/app", map[string]any{"k": "v"})
	prod, other := v.connection("prod"), v.connection("other")
	prod.Aliases = []string{platformID}
	settings := server.Settings{Connections: []server.Connection{prod, other}}
	s := start(t, settings)
	ask := func(name string, source secretsidecarv1.Source) {
		t.Helper()
		answer, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: name, Path: "secret/data/app/k"})
		if err != nil || answer.GetSource() != source {
			t.Fatalf("%s: %v, %v", name, answer, err)
		}
	}
	ask(platformID, secretsidecarv1.Source_SOURCE_VAULT)
	ask("prod", secretsidecarv1.Source_SOURCE_CACHE)
	answer, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Connection: platformID})
	if err != nil || answer.GetEntries() != 1 {
		t.Errorf("Invalidate: %v, %v", answer, err)
	}
	ask("prod", secretsidecarv1.Source_SOURCE_VAULT)
	report, err := s.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
		Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: platformID}})
	if err != nil || !report.GetOk() {
		t.Errorf("TestConnection: %v, %v", report, err)
	}
	listed := s.status(t, "prod")
	if !slices.Equal(listed.GetAliases(), prod.Aliases) || listed.GetResolves().GetVault() != 2 || listed.GetResolves().GetCache() != 1 {
		t.Errorf("listed: %v", listed)
	}
	eventually(t, "each connection has logged in, and the test", func() bool { return logins(v) == 3 })

	settings.Connections[0].Aliases = []string{"another"}
	if err := s.server.Apply(settings); err != nil {
		t.Fatal(err)
	}
	ask("another", secretsidecarv1.Source_SOURCE_CACHE)
	_, err = s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: platformID, Path: "secret/data/app/k"})
	wantProblem(t, err, codes.NotFound, "CONNECTION_NOT_FOUND")
	if n := logins(v); n != 3 {
		t.Errorf("a change of aliases cost %d logins", n-3)
	}
}

func TestARuleMayNameAnAlias(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/app", map[string]any{"k": "v"})
	prod, hidden := v.connection("prod"), v.connection("hidden")
	prod.Aliases, hidden.Aliases = []string{platformID}, []string{"hidden-alias"}
	s := start(t, server.Settings{Connections: []server.Connection{prod, hidden},
		Callers: us(func(r *server.CallerRule) { r.Connections = []string{platformID} })})
	for _, name := range []string{"prod", platformID} {
		if _, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: name, Path: "secret/data/app/k"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: "hidden-alias", Path: "secret/data/app/k"})
	wantProblem(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	if text := status.Convert(err).Message(); !strings.Contains(text, `"hidden-alias"`) || strings.Contains(text, `"hidden"`) {
		t.Errorf("a refused caller learns: %s", text)
	}
}

func TestNamesAndAliasesAreUnique(t *testing.T) {
	v := newVault(t)
	s := start(t, server.Settings{})
	named := func(name string, aliases ...string) server.Connection {
		c := v.connection(name)
		c.Aliases = aliases
		return c
	}
	for name, connections := range map[string][]server.Connection{
		"a name twice":            {named("a"), named("a")},
		"an alias that is a name": {named("a"), named("b", "a")},
		"a name that is an alias": {named("a", "b"), named("b")},
		"an alias of two":         {named("a", "x"), named("b", "x")},
		"its own name":            {named("a", "a")},
		"an alias twice":          {named("a", "x", "x")},
	} {
		if err := s.server.Apply(server.Settings{Connections: connections}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
