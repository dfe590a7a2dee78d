package server_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

const leakedValue = "s3cr3t/value+of 32 bytes, \"quoted\""

// scan sends the pieces of a text, and returns what is found in it.
func (s *sidecar) scan(t *testing.T, pieces ...string) ([]*secretsidecarv1.ScanResponse, error) {
	t.Helper()
	stream, err := s.Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, piece := range pieces {
		if stream.Send(&secretsidecarv1.ScanRequest{Data: []byte(piece)}) != nil {
			break // Recv says why
		}
	}
	_ = stream.CloseSend()
	var found []*secretsidecarv1.ScanResponse
	for {
		one, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		found = append(found, one)
	}
}

// scanning is settings that turn scanning on, with rules for the user of the tests.
func scanning(rules ...server.CallerRule) server.Settings {
	uid := uint32(os.Getuid()) // #nosec G115 -- a uid
	settings := server.Settings{Scan: true}
	for _, rule := range rules {
		rule.UID = &uid
		settings.Callers = append(settings.Callers, rule)
	}
	return settings
}

func TestAScanTellsWhereAValueStandsThatWasGivenOut(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/app", map[string]any{"k": leakedValue, "a/b": "another value/for batches"})
	settings := scanning()
	settings.Connections = []server.Connection{v.connection("prod")}
	s := start(t, settings)
	if found, err := s.scan(t, leakedValue); err != nil || len(found) != 0 {
		t.Fatalf("before it was given out: %v, %v", found, err)
	}
	s.resolve(t, "secret/data/app/k")
	batch := &secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{
		{Path: "secret/data/app", Key: "a/b"},
	}}
	if _, err := s.BatchResolve(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	found, err := s.scan(t, "0123"+leakedValue[:9], leakedValue[9:]+" another value%2Ffor+batches!")
	if err != nil || len(found) != 2 {
		t.Fatalf("found %v, %v", found, err)
	}
	first, second := found[0], found[1]
	if first.GetOffset() != 4 || first.GetLength() != uint64(len(leakedValue)) ||
		first.GetConnection() != "prod" || first.GetPath() != "secret/data/app/k" ||
		first.GetKey() != "" {
		t.Errorf("the first is %v", first)
	}
	if second.GetPath() != "secret/data/app" || second.GetKey() != "a/b" {
		t.Errorf("the second is %v", second)
	}
	for _, one := range found {
		if strings.Contains(one.String(), leakedValue[:8]) {
			t.Errorf("it holds the value: %v", one)
		}
	}
}

func TestAScanTakesARuleThatNamesIt(t *testing.T) {
	const denied, notAllowed = codes.PermissionDenied, "CALLER_NOT_ALLOWED"
	v, resolveOnly := newVault(t), server.CallerRule{Methods: []string{"Resolve"}}
	nobody := []server.CallerRule{}
	for name, test := range map[string]struct {
		settings server.Settings
		code     codes.Code
		reason   string
	}{
		"without rules":              {settings: scanning()},
		"a rule for everything":      {scanning(server.CallerRule{}), denied, notAllowed},
		"a rule for another method":  {scanning(resolveOnly), denied, notAllowed},
		"a rule that names it":       {settings: scanning(server.CallerRule{Methods: []string{"Scan"}})},
		"turned off":                 {server.Settings{}, codes.Unimplemented, "SCAN_DISABLED"},
		"turned off, and not listed": {server.Settings{Callers: nobody}, denied, notAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			test.settings.Connections = []server.Connection{v.connection("prod")}
			s := start(t, test.settings)
			_, err := s.scan(t, "a text")
			if test.code == codes.OK && err == nil {
				return
			}
			wantProblem(t, err, test.code, test.reason)
		})
	}
}

func TestAScanTellsOnlyReferencesThatItsCallerMayKnow(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/app", map[string]any{"k": leakedValue})
	all, onlyProd := server.CallerRule{Methods: []string{"Resolve"}}, []string{"prod"}
	for name, test := range map[string]struct {
		rule server.CallerRule
		want []string // connections
	}{
		"everything":           {server.CallerRule{}, []string{"own", "prod"}},
		"one connection":       {server.CallerRule{Connections: onlyProd}, onlyProd},
		"another connection":   {server.CallerRule{Connections: []string{"else"}}, nil},
		"its project":          {server.CallerRule{Projects: []string{"p1"}}, []string{"own"}},
		"another project":      {server.CallerRule{Projects: []string{"p3"}}, nil},
		"a project, elsewhere": {server.CallerRule{Projects: []string{"p1"}, Connections: onlyProd}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			test.rule.Methods = []string{"Scan"}
			settings := scanning(all, test.rule)
			own := v.connection("own")
			own.Scope, own.ProjectIDs = server.ScopeProject, []string{"p1"}
			settings.Connections = []server.Connection{own, v.connection("prod"), v.connection("else")}
			s := start(t, settings)
			for _, request := range []*secretsidecarv1.ResolveRequest{
				{Connection: "own", ProjectId: "p1", Path: "secret/data/app/k"},
				{Connection: "prod", Path: "secret/data/app/k"},
				{Connection: "prod", ProjectId: "p2", Path: "secret/data/app/k"},
			} {
				if _, err := s.Resolve(t.Context(), request); err != nil {
					t.Fatal(err)
				}
			}
			found, err := s.scan(t, leakedValue)
			if err != nil {
				t.Fatal(err)
			}
			var told []string
			for _, one := range found {
				told = append(told, one.GetConnection())
			}
			if !slices.Equal(told, test.want) {
				t.Errorf("told %v, want %v", told, test.want)
			}
		})
	}
}

// Whoever may scan feeds guesses. Only the whole value says yes, so that it cannot be found byte by
// byte, and TestAUserMakesNoMoreGuessesThanItsBytesAllow bounds how many there are.
func TestGuessesTellNothingButTheWholeValue(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/app", map[string]any{"k": leakedValue, "pin": "493-178-204-577"})
	settings := scanning()
	settings.Connections = []server.Connection{v.connection("prod")}
	s := start(t, settings)
	s.resolve(t, "secret/data/app/k")
	s.resolve(t, "secret/data/app/pin")
	guesses := []string{"493-178-204-577"} // a short value is not confirmed at all
	for n := range len(leakedValue) {
		guesses = append(guesses, leakedValue[:n], leakedValue[n+1:])
		for guess := range 256 {
			if byte(guess) != leakedValue[n] { // #nosec G115 -- a byte
				guesses = append(guesses, leakedValue[:n]+string([]byte{byte(guess)})+leakedValue[n+1:])
			}
		}
	}
	text := strings.Join(guesses, "\x00")
	var pieces []string
	for piece := range slices.Chunk([]byte(text), 1<<16) {
		pieces = append(pieces, string(piece))
	}
	if found, err := s.scan(t, pieces...); err != nil || len(found) != 0 {
		t.Errorf("%d guesses tell %v, %v", len(guesses), found, err)
	}
	if found, err := s.scan(t, leakedValue); err != nil || len(found) != 1 {
		t.Errorf("the value itself tells %v, %v", found, err)
	}
}

func TestTurningScanningOffEndsAScanAndForgetsWhatWasGivenOut(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/app", map[string]any{"k": leakedValue})
	settings := scanning()
	settings.Connections = []server.Connection{v.connection("prod")}
	s := start(t, settings)
	s.resolve(t, "secret/data/app/k")
	stream, err := s.Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(stream.Send(&secretsidecarv1.ScanRequest{Data: []byte(leakedValue)}))
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	off := settings
	off.Scan = false
	must(s.server.Apply(off))
	must(stream.Send(&secretsidecarv1.ScanRequest{Data: []byte(leakedValue)}))
	_, err = stream.Recv()
	wantProblem(t, err, codes.Unimplemented, "SCAN_DISABLED")
	must(s.server.Apply(settings))
	if found, err := s.scan(t, leakedValue); err != nil || len(found) != 0 {
		t.Errorf("it is still known: %v, %v", found, err)
	}
}

func TestScansOfAUserAreLimitedInNumber(t *testing.T) {
	v := newVault(t)
	settings := scanning()
	settings.Connections = []server.Connection{v.connection("prod")}
	s := start(t, settings)
	refused := 0
	for range 50 {
		if _, err := s.scan(t, "a text"); err != nil {
			wantProblem(t, err, codes.ResourceExhausted, "RATE_LIMITED")
			refused++
		}
	}
	if refused == 0 {
		t.Error("50 scans in a row are none too many")
	}
}

func BenchmarkCachedResolveWhileScanningIsOn(b *testing.B) {
	for _, scan := range []bool{false, true} {
		b.Run(fmt.Sprintf("scan=%v", scan), func(b *testing.B) {
			v := newVault(b)
			v.write(b, "secret/data/app", map[string]any{"k": leakedValue})
			settings := server.Settings{Scan: scan}
			settings.Connections = []server.Connection{v.connection("prod")}
			s, request := start(b, settings), &secretsidecarv1.ResolveRequest{Path: "secret/data/app/k"}
			for b.Loop() {
				if _, err := s.Resolve(b.Context(), request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
