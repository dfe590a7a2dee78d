// Package proto_test holds the tests of the API's definition, and of what its generated code
// promises beyond protoc-gen-go's. They are here because everything in gen/ is generated.
package proto_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	_ "google.golang.org/protobuf/types/descriptorpb" // without it no descriptor tells its options

	pb "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// Debian 12 has protoc 3.21 and a grpc_tools of 2018. SECRET_SIDECAR_REQUIRE_PROTOC=1 turns a
// machine that lacks one of them from a skip into a failure.
func TestTheCompilersOfDebian12CompileTheProtos(t *testing.T) {
	files, err := filepath.Glob("secretsidecar/v1/*.proto")
	if err != nil || len(files) == 0 {
		t.Fatalf("found no proto: %v", err)
	}
	for name, c := range map[string]struct {
		compiler []string
		packages string
	}{
		"protoc": {
			[]string{"protoc"}, "protobuf-compiler libprotobuf-dev",
		},
		"grpc_tools": {
			[]string{"/usr/bin/python3", "-m", "grpc_tools.protoc"}, "python3-grpc-tools",
		},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(args ...string) ([]byte, error) {
				args = slices.Concat(c.compiler[1:], args)
				return exec.CommandContext(t.Context(), c.compiler[0], args...).CombinedOutput()
			}
			out := "--python_out=" + t.TempDir()
			_, err := run(out, "google/protobuf/duration.proto")
			switch {
			case err == nil:
			case os.Getenv("SECRET_SIDECAR_REQUIRE_PROTOC") == "1":
				t.Fatalf("%s is required: apt-get install %s", name, c.packages)
			default:
				t.Skipf("there is no %s here: apt-get install %s", name, c.packages)
			}
			if text, err := run(append(files, "--proto_path=.", out)...); err != nil {
				t.Errorf("%s does not compile the protos: %v\n%s", name, err, text)
			}
		})
	}
}

// Each release of protoc brings options that the earlier ones refuse. These two are as old as
// proto3.
func TestTheProtosUseNoOptionThatAnOldCompilerRefuses(t *testing.T) {
	known := map[protoreflect.Name]bool{"go_package": true, "deprecated": true}
	file := pb.File_secretsidecar_v1_secret_service_proto
	if file.Syntax() != protoreflect.Proto3 {
		t.Errorf("the syntax is %v, which protoc 3.21 does not know", file.Syntax())
	}
	for _, d := range append(below(file), file) {
		options := d.Options().ProtoReflect()
		if len(options.GetUnknown()) > 0 {
			t.Errorf("%s has an option of somebody else's", d.FullName())
		}
		options.Range(func(option protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			if !known[option.Name()] {
				t.Errorf("%s: an old protoc may refuse %s", d.FullName(), option.FullName())
			}
			return true
		})
	}
}

// below returns everything that a file defines.
func below(file protoreflect.FileDescriptor) []protoreflect.Descriptor {
	var all []protoreflect.Descriptor
	for i := range file.Messages().Len() {
		m := file.Messages().Get(i)
		all = append(all, m)
		for j := range m.Fields().Len() {
			all = append(all, m.Fields().Get(j))
		}
		for j := range m.Oneofs().Len() {
			all = append(all, m.Oneofs().Get(j))
		}
	}
	for i := range file.Enums().Len() {
		e := file.Enums().Get(i)
		all = append(all, e)
		for j := range e.Values().Len() {
			all = append(all, e.Values().Get(j))
		}
	}
	for i := range file.Services().Len() {
		s := file.Services().Get(i)
		all = append(all, s)
		for j := range s.Methods().Len() {
			all = append(all, s.Methods().Get(j))
		}
	}
	return all
}
