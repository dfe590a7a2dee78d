package server

import (
	"errors"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

func TestCallerRules(t *testing.T) {
	id := func(n uint32) *uint32 { return &n }
	worker := unixsocket.Peer{UID: 1000, GID: 100, Groups: []uint32{200}}
	root := unixsocket.Peer{}
	resolve := access{method: methodResolve, connection: "prod", project: "p1"}
	with := func(a access, change func(*access)) access { change(&a); return a }

	for _, test := range []struct {
		name   string
		rules  []CallerRule
		caller unixsocket.Peer
		want   access
		reason string // "" is allowed
	}{
		{"no rules let everybody in", nil, worker, resolve, ""},
		{"an empty list lets nobody in", []CallerRule{}, worker, resolve, "CALLER_NOT_ALLOWED"},
		{"root is no exception", []CallerRule{{UID: id(1000)}}, root, resolve, "CALLER_NOT_ALLOWED"},
		{"a uid matches", []CallerRule{{UID: id(1000)}}, worker, resolve, ""},
		{"another uid does not", []CallerRule{{UID: id(1001)}}, worker, resolve, "CALLER_NOT_ALLOWED"},
		{"the primary group matches", []CallerRule{{GID: id(100)}}, worker, resolve, ""},
		{"a supplementary group matches", []CallerRule{{GID: id(200)}}, worker, resolve, ""},
		{"uid and gid must both match", []CallerRule{{UID: id(1000), GID: id(300)}}, worker, resolve, "CALLER_NOT_ALLOWED"},
		{"a rule for nobody matches nobody", []CallerRule{{}}, root, resolve, "CALLER_NOT_ALLOWED"},
		{"the connection is listed", []CallerRule{{UID: id(1000), Connections: []string{"prod"}}}, worker, resolve, ""},
		{"the connection is not listed", []CallerRule{{UID: id(1000), Connections: []string{"dev"}}}, worker, resolve, "CALLER_NOT_ALLOWED"},
		{"the method is not listed", []CallerRule{{UID: id(1000), Methods: []string{"Resolve"}}}, worker, with(resolve, func(a *access) { a.method = methodInvalidate }), "CALLER_NOT_ALLOWED"},
		{"the project is listed", []CallerRule{{UID: id(1000), Projects: []string{"p1"}}}, worker, resolve, ""},
		{"the project is not listed", []CallerRule{{UID: id(1000), Projects: []string{"p2"}}}, worker, resolve, "PROJECT_NOT_ALLOWED"},
		{"an empty project is refused", []CallerRule{{UID: id(1000), Projects: []string{"p1"}}}, worker, with(resolve, func(a *access) { a.project = "" }), "PROJECT_REQUIRED"},
		{"rules add up", []CallerRule{{UID: id(1000), Projects: []string{"p2"}}, {GID: id(200), Projects: []string{"p1"}}}, worker, resolve, ""},
		{"rules do not mix", []CallerRule{{UID: id(1000), Connections: []string{"dev"}}, {UID: id(1001), Connections: []string{"prod"}}}, worker, resolve, "CALLER_NOT_ALLOWED"},
		{"every connection at once takes a rule without connections", []CallerRule{{UID: id(1000), Connections: []string{"prod"}}}, worker, access{method: methodInvalidate, connection: anyConnection}, "CALLER_NOT_ALLOWED"},
		{"a rule with projects does not cover a method without one", []CallerRule{{UID: id(1000), Projects: []string{"p1"}}}, worker, access{method: methodInvalidate, connection: "prod"}, "CALLER_NOT_ALLOWED"},
		{"unless it names the method", []CallerRule{{UID: id(1000), Projects: []string{"p1"}, Methods: []string{"Invalidate"}}}, worker, access{method: methodInvalidate, connection: "prod"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := authorize(test.rules, test.caller, test.want)
			got := ""
			if p, ok := errors.AsType[*problem](err); ok {
				got = p.reason
			}
			if got != test.reason {
				t.Errorf("got %q (%v), want %q", got, err, test.reason)
			}
		})
	}
}

func TestARefusedCallerIsNotToldWhichConnectionItMeant(t *testing.T) {
	err := authorize([]CallerRule{}, unixsocket.Peer{UID: 7}, access{method: methodResolve, connection: "topsecretname"})
	if err == nil || strings.Contains(err.Error(), "topsecretname") {
		t.Errorf("got %v", err)
	}
}
