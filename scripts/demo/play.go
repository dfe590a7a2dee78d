package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

const (
	secretAPI   = "secret/data/mysec"
	secretKey   = "api_key"
	reference   = secretAPI + "/" + secretKey
	firstValue  = "supersecret"
	secondValue = "rotated"
)

// play goes through the scenes and stops at the first that does not show what it should.
func play(ctx context.Context, s *stage) error {
	scenes := []struct {
		title string
		show  func(ctx context.Context) error
	}{
		{"Test the connection", s.run([]string{"connections", "test", "default"}, `reach +PASSED`,
			`login +PASSED`)},
		{"Resolve a secret: it is read from Vault", s.resolve(firstValue, "SOURCE_VAULT", 1)},
		{"Resolve it again: it comes from the cache", s.resolve(firstValue, "SOURCE_CACHE", 1)},
		{"Rotate it in Vault", s.rotate},
		{"Still the old value, for as long as the cached copy is fresh",
			s.resolve(firstValue, "SOURCE_CACHE", 1)},
		{"Invalidate it", s.run([]string{"invalidate", reference}, `^dropped 1 cached secret\n$`)},
		{"The new value", s.resolve(secondValue, "SOURCE_VAULT", 2)},
		{"Several at once, each with its own outcome", s.batch},
		{"A path that tries to get out is refused",
			s.refuse([]string{"resolve", "secret/data/../../sys/mounts"}, `INVALID_PATH`)},
	}
	for i, scene := range scenes {
		fmt.Printf("\n# %d. %s\n", i+1, scene.title)
		if err := scene.show(ctx); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, scene.title, err)
		}
	}
	fmt.Printf("\n# All %d steps showed what they should.\n", len(scenes))
	return nil
}

// command runs secret-sidecar and returns what it printed.
func (s *stage) command(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	command := exec.CommandContext(ctx, s.program, args...)
	command.Env = s.environment()
	command.Stdout, command.Stderr = &out, &errs
	err = command.Run()
	return out.String(), errs.String(), err
}

// run is a scene: the command has to succeed and to print what matches the patterns.
func (s *stage) run(args []string, patterns ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		fmt.Println("$ secret-sidecar", strings.Join(args, " "))
		stdout, stderr, err := s.command(ctx, args...)
		fmt.Print(stdout, stderr)
		if err != nil {
			return err
		}
		return matchAll(stdout, patterns)
	}
}

func (s *stage) resolve(value, source string, version int) func(context.Context) error {
	return s.run([]string{"resolve", reference, "--output", "json"},
		fmt.Sprintf(`"value": %q`, value), fmt.Sprintf(`"source": %q`, source),
		fmt.Sprintf(`"version": %d\b`, version))
}

// refuse is a scene: the command has to fail with exit code 1 and an error that matches the
// patterns.
func (s *stage) refuse(args []string, patterns ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		fmt.Println("$ secret-sidecar", strings.Join(args, " "))
		stdout, stderr, err := s.command(ctx, args...)
		fmt.Print(stdout, stderr)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			return fmt.Errorf("it should have failed with exit code 1, and ended with: %w", err)
		}
		fmt.Printf("(exit code %d)\n", exit.ExitCode())
		return matchAll(stderr, patterns)
	}
}

// rotate writes a new version of the secret straight to Vault, as an operator would.
func (s *stage) rotate(ctx context.Context) error {
	fmt.Printf("$ curl -H 'X-Vault-Token: ...' -d '{\"data\": {%q: %q}}' %s/v1/%s\n", secretKey,
		secondValue, s.vault.address, secretAPI)
	answer, err := s.vault.do(ctx, http.MethodPost, secretAPI,
		map[string]any{"data": map[string]any{secretKey: secondValue}})
	if err != nil {
		return err
	}
	fmt.Println(strings.TrimSpace(string(answer)))
	return matchAll(string(answer), []string{`"version":2\b`})
}

// batch asks for three keys over gRPC, of which one is not there.
func (s *stage) batch(ctx context.Context) error {
	request := &secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{
		{Path: reference}, {Path: secretAPI + "/no_such_key"}, {Path: "secret/data/no/such/secret"},
	}}
	fmt.Println("> secretsidecar.v1.SecretService/BatchResolve")
	if err := printJSON(request); err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix:"+s.socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	answer, err := secretsidecarv1.NewSecretServiceClient(conn).BatchResolve(ctx, request)
	if err != nil {
		return err
	}
	fmt.Println("<")
	if err := printJSON(answer); err != nil {
		return err
	}
	results := answer.GetResults()
	if len(results) != 3 || results[0].GetSecret().GetValue() != secondValue ||
		results[1].GetError().GetReason() != "KEY_NOT_FOUND" ||
		results[2].GetError().GetReason() != "SECRET_NOT_FOUND" {
		return errors.New("the batch should have the value, KEY_NOT_FOUND and SECRET_NOT_FOUND")
	}
	return nil
}

func matchAll(text string, patterns []string) error {
	for _, pattern := range patterns {
		if !regexp.MustCompile(pattern).MatchString(text) {
			return fmt.Errorf("the output should match %s", pattern)
		}
	}
	return nil
}

func printJSON(message proto.Message) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return err
	}
	fmt.Println(indented.String())
	return nil
}
