package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

func TestEveryFieldOfTheConfigurationReachesTheServer(t *testing.T) {
	id := uint32(7)
	loaded := &config.Config{
		Callers: []config.Caller{{UID: &id, GID: &id, Connections: []string{"c"}, Projects: []string{"p"}, Methods: []string{"Resolve"}}},
		Cache:   config.Cache{MaxBytes: 1},
		Connections: []config.Connection{{
			Name: "prod", Scope: config.ScopeProject, ProjectIDs: []string{"p"}, Address: "https://v", Namespace: "n", AuthMount: "a",
			RoleID: login.Credential{Value: redact.New("r")}, SecretID: login.Credential{File: "/s"}, SecretIDWrapped: true,
			TLS:      config.TLS{CAFile: "/ca", ServerName: "sn", ClientCertFile: "/cc", ClientKeyFile: "/ck"},
			Required: true, Timeout: 2 * time.Second, MaxWaiting: 3,
			Cache: config.CachePolicy{TTL: 4, MaxStale: 5, NegativeTTL: 6, RefreshAhead: 7},
		}},
	}
	for _, one := range []any{loaded.Callers[0], loaded.Connections[0], loaded.Connections[0].TLS, loaded.Connections[0].Cache} {
		requireNoZeroField(t, one)
	}
	want := server.Settings{
		Callers:    []server.CallerRule{{UID: &id, GID: &id, Connections: []string{"c"}, Projects: []string{"p"}, Methods: []string{"Resolve"}}},
		CacheBytes: 1,
		Connections: []server.Connection{{
			Name: "prod", Scope: server.ScopeProject, ProjectIDs: []string{"p"}, Required: true,
			Vault: conn.Config{
				Name: "prod", AuthMount: "a",
				Config: vault.Config{Address: "https://v", Namespace: "n",
					TLS: vault.TLS{CAFile: "/ca", ServerName: "sn", ClientCertFile: "/cc", ClientKeyFile: "/ck"}},
				RoleID: login.Credential{Value: redact.New("r")}, SecretID: login.Credential{File: "/s"}, SecretIDWrapped: true,
				Timeout: 2 * time.Second,
			},
			Policy: cache.Policy{TTL: 4, MaxStale: 5, NegativeTTL: 6, RefreshAhead: 7, MaxWaiting: 3},
		}},
	}
	if got := serverSettings(loaded); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// requireNoZeroField makes a field that is added to the configuration fail this test until it is mapped.
func requireNoZeroField(t *testing.T, structure any) {
	t.Helper()
	value := reflect.ValueOf(structure)
	for i := range value.NumField() {
		if value.Field(i).IsZero() {
			t.Errorf("%s.%s has no value in this test", value.Type(), value.Type().Field(i).Name)
		}
	}
}

func TestAnEmptyListOfCallersStaysDifferentFromNone(t *testing.T) {
	if rules := serverSettings(&config.Config{}).Callers; rules != nil {
		t.Errorf("no rules became %v: they would let nobody in", rules)
	}
	if rules := serverSettings(&config.Config{Callers: []config.Caller{}}).Callers; rules == nil {
		t.Error("empty rules became none: they would let everybody in")
	}
}

func TestBothSidesNumberTheScopesAlike(t *testing.T) {
	if server.Scope(config.ScopePlatform) != server.ScopePlatform || server.Scope(config.ScopeProject) != server.ScopeProject {
		t.Error("the scopes of config and server differ")
	}
}
