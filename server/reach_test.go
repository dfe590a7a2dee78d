package server_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// allMethods are what a rule of projects has to name, but RenewLogin.
var allMethods = []string{"Resolve", "BatchResolve", "TestConnection", "Invalidate", "ListConnections"}

// us is a rule for the process that runs the test.
func us(change func(*server.CallerRule)) []server.CallerRule {
	uid := uint32(os.Getuid()) // #nosec G115 -- uids fit
	rule := server.CallerRule{UID: &uid, Methods: allMethods}
	change(&rule)
	return []server.CallerRule{rule}
}

// ofProject is a rule of project p1.
func ofProject(methods ...string) []server.CallerRule {
	return us(func(r *server.CallerRule) {
		r.Projects, r.Methods = []string{"p1"}, append(slices.Clone(allMethods), methods...)
	})
}

func pathPatterns(t testing.TB, texts ...string) []server.PathPattern {
	t.Helper()
	patterns := make([]server.PathPattern, len(texts))
	for i, text := range texts {
		var err error
		if patterns[i], err = server.ParsePathPattern(text); err != nil {
			t.Fatal(err)
		}
	}
	return patterns
}

func (v *frontedVault) projectConnection(name string, projects ...string) server.Connection {
	c := v.connection(name)
	c.Scope, c.ProjectIDs = server.ScopeProject, projects
	return c
}

// requestsFor are those that name a connection, with what they are called.
func requestsFor(s *sidecar, t *testing.T, name string) map[string]error {
	const path = "secret/data/mysec/api_key"
	answers := map[string]error{}
	test := func(path string) error {
		_, err := s.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
			Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: name}, Path: path})
		return err
	}
	invalidate := func(path string, renew bool) error {
		_, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Connection: name, Path: path, RenewLogin: renew})
		return err
	}
	resolve := &secretsidecarv1.ResolveRequest{Connection: name, Path: path, ProjectId: "p1"}
	_, answers["Resolve"] = s.Resolve(t.Context(), resolve)
	batch, err := s.BatchResolve(t.Context(), &secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{resolve}})
	answers["BatchResolve"] = err
	if failed := batch.GetResults()[0].GetError(); failed != nil {
		answers["BatchResolve"] = status.Error(codes.Code(failed.GetCode()), failed.String()) // #nosec G115 -- a code
	}
	answers["TestConnection"], answers["TestConnection with a path"] = test(""), test(path)
	answers["Invalidate"], answers["Invalidate with a path"] = invalidate("", false), invalidate(path, false)
	answers["Invalidate with a prefix"], answers["Invalidate with renew_login"] = invalidate("secret/", false), invalidate("", true)
	return answers
}

func TestAConnectionThatACallersRuleDoesNotReachIsAnsweredLikeOneThatIsNotThere(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"api_key": "value"})
	theirs := v.projectConnection("theirs", "p2")
	theirs.Aliases = []string{"other-name"}
	mine := v.projectConnection("mine", "p1")
	for name, rules := range map[string][]server.CallerRule{
		"by its projects":             ofProject(),
		"by its projects and methods": ofProject("RenewLogin"),
		"by its connections":          us(func(r *server.CallerRule) { r.Connections = []string{"mine"} }),
		"by both": us(func(r *server.CallerRule) {
			r.Connections, r.Projects = []string{"mine"}, []string{"p1"}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			loginsBefore := logins(v)
			with := start(t, server.Settings{Connections: []server.Connection{mine, theirs}, Callers: rules})
			without := start(t, server.Settings{Connections: []server.Connection{mine}, Callers: rules})
			eventually(t, "both have logged in", func() bool { return logins(v) == loginsBefore+3 })
			reads := v.count("GET /v1/secret/")
			for _, connection := range []string{"theirs", "other-name"} {
				want := requestsFor(without, t, connection)
				for request, got := range requestsFor(with, t, connection) {
					if got == nil || !proto.Equal(status.Convert(got).Proto(), status.Convert(want[request]).Proto()) {
						t.Errorf("%s of %s: %v\nwant %v", request, connection, got, want[request])
					}
				}
			}
			if logins(v) != loginsBefore+3 || v.count("GET /v1/secret/") != reads {
				t.Errorf("Vault was asked: %d logins, %d reads", logins(v)-loginsBefore-3, v.count("GET /v1/secret/")-reads)
			}
			listed, err := with.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
			if err != nil || len(listed.GetConnections()) != 1 || listed.GetConnections()[0].GetName() != "mine" {
				t.Errorf("listed: %v, %v", listed, err)
			}
			if _, err := with.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{
				Connection: "mine", Path: "secret/data/mysec/api_key", ProjectId: "p1"}); err != nil {
				t.Errorf("its own: %v", err)
			}
		})
	}
}

func TestACallerWithoutConnectionsLearnsOfNone(t *testing.T) {
	v := newVault(t)
	for _, connections := range [][]server.Connection{
		nil, {v.projectConnection("theirs", "p2")}, {v.projectConnection("theirs", "p2"), v.projectConnection("hers", "p3")},
	} {
		s := start(t, server.Settings{Connections: connections, Callers: ofProject()})
		_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/api_key", ProjectId: "p1"})
		wantProblem(t, err, codes.InvalidArgument, "CONNECTION_REQUIRED")
		if text := status.Convert(err).Message(); !strings.Contains(text, "no connection is configured") {
			t.Errorf("with %d connections: %s", len(connections), text)
		}
		answer, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{})
		if err != nil || answer.GetEntries() != 0 {
			t.Errorf("Invalidate: %v, %v", answer, err)
		}
		if listed, err := s.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{}); err != nil || len(listed.GetConnections()) != 0 {
			t.Errorf("listed: %v, %v", listed, err)
		}
	}
}

func TestTheListNamesProjectsThatTheCallerMayName(t *testing.T) {
	v := newVault(t)
	s := start(t, server.Settings{Connections: []server.Connection{v.projectConnection("shared", "p1", "p2")}, Callers: ofProject()})
	listed, err := s.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
	if err != nil || !slices.Equal(listed.GetConnections()[0].GetProjectIds(), []string{"p1"}) {
		t.Errorf("listed: %v, %v", listed, err)
	}
}

// cached reads one secret of each project and one of all, and returns a function that tells which of
// them are still cached.
func cached(t *testing.T, s *sidecar, settings server.Settings) func() []string {
	t.Helper()
	secrets := map[string]string{
		"secret/data/p1/app": "p1", "secret/data/p1/deep/app": "p1", "secret/data/p2/app": "p2", "secret/data/shared": "p1",
	}
	settings.Callers = nil
	ask := func(path, project string) *secretsidecarv1.ResolveResponse {
		answer, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: settings.Connections[0].Name,
			Path: path, Key: "k", ProjectId: project, MaxStale: durationpb.New(0)})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	for path, project := range secrets {
		ask(path, project)
	}
	return func() (still []string) {
		if err := s.server.Apply(settings); err != nil {
			t.Fatal(err)
		}
		for path, project := range secrets {
			if ask(path, project).GetSource() == secretsidecarv1.Source_SOURCE_CACHE {
				still = append(still, path)
			}
		}
		slices.Sort(still)
		return still
	}
}

func TestInvalidateDropsWhatTheCallersProjectsMayReadAndNothingElse(t *testing.T) {
	v := newVault(t)
	for _, path := range []string{"secret/data/p1/app", "secret/data/p1/deep/app", "secret/data/p2/app", "secret/data/shared"} {
		v.write(t, path, map[string]any{"k": "v"})
	}
	const p2 = "secret/data/p2/app"
	paths := pathPatterns(t, "secret/data/{project_id}/**", "secret/data/shared/*")
	limited := func(c server.Connection) server.Connection { c.Paths = paths; return c }
	byPaths := us(func(r *server.CallerRule) { r.Paths = pathPatterns(t, "secret/data/p1/**") })
	anyProject := us(func(r *server.CallerRule) { r.Paths = paths })
	all := []string{"secret/data/p1/app", "secret/data/p1/deep/app", p2, "secret/data/shared"}
	for _, test := range []struct {
		name       string
		connection server.Connection
		rules      []server.CallerRule
		request    *secretsidecarv1.InvalidateRequest
		refusedBy  string
		dropped    uint32
		stillThere []string
	}{
		{"all", limited(v.connection("prod")), ofProject(), &secretsidecarv1.InvalidateRequest{}, "", 3, []string{p2}},
		{"all of a connection", limited(v.connection("prod")), ofProject(), &secretsidecarv1.InvalidateRequest{Connection: "prod"}, "", 3, []string{p2}},
		{"a prefix", limited(v.connection("prod")), ofProject(), &secretsidecarv1.InvalidateRequest{Path: "secret/data/"}, "", 3, []string{p2}},
		{"the prefix of another project", limited(v.connection("prod")), ofProject(), &secretsidecarv1.InvalidateRequest{Path: "secret/data/p2/"}, "", 0, all},
		{"a secret", limited(v.connection("prod")), ofProject(), &secretsidecarv1.InvalidateRequest{Connection: "prod", Path: "secret/data/p1/app/k"}, "", 1, all[1:]},
		{"another project's secret", limited(v.connection("prod")), ofProject(), &secretsidecarv1.InvalidateRequest{Path: p2 + "/k"}, "", 0, all},
		{"another project's secret, on a connection", limited(v.connection("prod")), ofProject(),
			&secretsidecarv1.InvalidateRequest{Connection: "prod", Path: p2 + "/k"}, "PROJECT_NOT_ALLOWED", 0, all},
		{"a secret outside the rule's paths", v.connection("prod"), byPaths,
			&secretsidecarv1.InvalidateRequest{Connection: "prod", Path: p2 + "/k"}, "CALLER_NOT_ALLOWED", 0, all},
		{"all, by a rule of paths", v.connection("prod"), byPaths, &secretsidecarv1.InvalidateRequest{}, "", 2, all[2:]},
		{"all, by a rule of paths for any project", v.connection("prod"), anyProject, &secretsidecarv1.InvalidateRequest{}, "", 4, nil},
		{"all, by a rule of paths for any project, on a connection of projects", limited(v.projectConnection("prod", "p1", "p2")), anyProject,
			&secretsidecarv1.InvalidateRequest{}, "", 4, nil},
		{"all of a platform connection without paths, which every project may read", v.connection("prod"), ofProject(),
			&secretsidecarv1.InvalidateRequest{}, "", 4, nil},
		{"all, by a rule that is not limited", limited(v.connection("prod")), us(func(*server.CallerRule) {}), &secretsidecarv1.InvalidateRequest{}, "", 4, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			settings := server.Settings{Connections: []server.Connection{test.connection}}
			s := start(t, settings)
			stillThere := cached(t, s, settings)
			settings.Callers = test.rules
			if err := s.server.Apply(settings); err != nil {
				t.Fatal(err)
			}
			answer, err := s.Invalidate(t.Context(), test.request)
			switch {
			case test.refusedBy != "":
				wantProblem(t, err, codes.PermissionDenied, test.refusedBy)
			case err != nil || answer.GetEntries() != test.dropped:
				t.Errorf("got %v, %v, want %d dropped", answer, err, test.dropped)
			}
			if still := stillThere(); !slices.Equal(still, test.stillThere) {
				t.Errorf("still there: %v, want %v", still, test.stillThere)
			}
		})
	}
}

func TestARuleOfProjectsRenewsTheLoginOfItsOwnConnectionsAlone(t *testing.T) {
	v := newVault(t)
	byPaths := us(func(r *server.CallerRule) { r.Paths = pathPatterns(t, "secret/data/p1/**") })
	for _, test := range []struct {
		name       string
		connection server.Connection
		rules      []server.CallerRule
		allowed    bool
	}{
		{"its own", v.projectConnection("prod", "p1"), ofProject(), true},
		{"one that another project uses too", v.projectConnection("prod", "p1", "p2"), ofProject(), false},
		{"one that another project uses too, with RenewLogin", v.projectConnection("prod", "p1", "p2"), ofProject("RenewLogin"), true},
		{"one of the platform", v.connection("prod"), ofProject(), false},
		{"one of the platform, with RenewLogin", v.connection("prod"), ofProject("RenewLogin"), true},
		{"a rule of paths", v.connection("prod"), byPaths, false},
		{"a rule of neither", v.connection("prod"), us(func(*server.CallerRule) {}), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := logins(v)
			s := start(t, server.Settings{Connections: []server.Connection{test.connection}, Callers: test.rules})
			eventually(t, "it has logged in", func() bool { return logins(v) == before+1 })
			for _, name := range []string{"prod", ""} {
				_, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Connection: name, RenewLogin: true})
				if !test.allowed {
					wantProblem(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
					if text := status.Convert(err).Message(); !strings.Contains(text, "RenewLogin") {
						t.Errorf("the message does not say what to do: %s", text)
					}
				} else if err != nil {
					t.Error(err)
				}
			}
			want := 1
			if test.allowed {
				want = 2
			}
			if n := logins(v) - before; n != want {
				t.Errorf("%d logins, want %d", n, want)
			}
		})
	}
}

func TestATestOfAConnectionReadsOnlyWhatItsCallerMayRead(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/p1/app", map[string]any{"k": "v"})
	prod := v.connection("prod")
	prod.Paths = pathPatterns(t, "secret/data/{project_id}/**")
	for _, test := range []struct {
		name, path string
		rules      []server.CallerRule
		reason     string // "" is allowed
	}{
		{"its own project's", "secret/data/p1/app/k", ofProject(), ""},
		{"another project's", "secret/data/p2/app/k", ofProject(), "PROJECT_NOT_ALLOWED"},
		{"another project's that is absent", "secret/data/p2/absent/k", ofProject(), "PROJECT_NOT_ALLOWED"},
		{"any project's, without rules", "secret/data/p1/app/k", nil, ""},
		{"what no project may read", "secret/other/data/app/k", nil, "PROJECT_NOT_ALLOWED"},
		{"outside the rule's paths", "secret/data/p1/app/k", us(func(r *server.CallerRule) {
			r.Paths = pathPatterns(t, "secret/data/{project_id}/other/*")
		}), "CALLER_NOT_ALLOWED"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, server.Settings{Connections: []server.Connection{prod}, Callers: test.rules})
			before := v.count("GET /v1/secret/")
			report, err := s.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
				Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: "prod"}, Path: test.path})
			if test.reason == "" {
				if err != nil || !report.GetOk() {
					t.Errorf("got %v, %v", report, err)
				}
				return
			}
			wantProblem(t, err, codes.PermissionDenied, test.reason)
			if asked := v.count("GET /v1/secret/") - before; asked != 0 {
				t.Errorf("Vault was asked %d times", asked)
			}
		})
	}
}
