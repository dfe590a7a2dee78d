package server

import (
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

func TestWhoMayAskIsDecidedWithoutAnAllocation(t *testing.T) {
	uid := uint32(1000)
	pattern, err := ParsePathPattern("flows/data/{project_id}/**")
	if err != nil {
		t.Fatal(err)
	}
	for name, rule := range map[string]*CallerRule{
		"no rules":           nil,
		"a rule":             {UID: &uid},
		"a rule of projects": {UID: &uid, Projects: []string{"p0", "p1"}, Connections: []string{"prod"}},
		"a rule of paths":    {UID: &uid, Paths: []PathPattern{pattern}},
	} {
		c := &connection{Connection: Connection{Name: "prod", Scope: ScopePlatform}}
		s := &snapshot{connections: map[string]*connection{"prod": c}, aliases: map[string]string{"alias": "prod"}}
		if rule != nil {
			s.callers = []CallerRule{*rule}
			c.Paths = rule.Paths
		}
		for _, asked := range []string{"", "prod", "alias"} {
			want := access{
				method: methodResolve, asked: asked, project: "p1", target: target{secret: "flows/data/p1", key: "key"},
			}
			allocations := testing.AllocsPerRun(100, func() {
				found, err := s.authorized(unixsocket.Peer{UID: uid}, want)
				if err != nil || found.allows(want.project, want.target) != nil {
					t.Fatalf("%s, %q: %v", name, asked, err)
				}
			})
			if allocations != 0 {
				t.Errorf("%s, %q: %v allocations", name, asked, allocations)
			}
		}
	}
}
