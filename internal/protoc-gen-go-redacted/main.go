// Protoc-gen-go-redacted generates what protoc-gen-go does, except that no message prints a secret.
//
// A worker logs an answer sooner or later, and protoc-gen-go's String shows all of it. The standard
// option against this, debug_redact, does nothing in Go, and protoc 3.21 refuses to compile it. An
// option of our own needs a number that no other option has in any program which imports the
// generated code: where two have the same, the program panics as it starts. So the secrets are
// listed here.
//
// Another file of the package cannot replace String. That is why this generator runs instead of
// protoc-gen-go and not after it.
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"text/template"

	gengo "google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// secrets are the fields of text or bytes that are never printed. The tests in proto/ fail when this list
// lacks a field that its name calls a secret.
var secrets = []protoreflect.FullName{
	"secretsidecar.v1.ConnectionSpec.secret_id",
	"secretsidecar.v1.ResolveResponse.value",
	"secretsidecar.v1.ScanRequest.data",
}

//go:embed redacted.go.tmpl
var source string

var methods = template.Must(template.New("methods").Parse(source))

func main() {
	protogen.Options{}.Run(func(plugin *protogen.Plugin) error {
		plugin.SupportedFeatures = gengo.SupportedFeatures
		plugin.SupportedEditionsMinimum = gengo.SupportedEditionsMinimum
		plugin.SupportedEditionsMaximum = gengo.SupportedEditionsMaximum
		for _, file := range plugin.Files {
			if !file.Generate {
				continue
			}
			if err := generate(plugin, file); err != nil {
				return fmt.Errorf("generate the code of %s: %w", file.Desc.Path(), err)
			}
		}
		return nil
	})
}

// generate writes protoc-gen-go's file with another String, and a second file with what String
// needs and with the methods that protoc-gen-go does not write.
func generate(plugin *protogen.Plugin, file *protogen.File) error {
	if err := generateMessages(plugin, file); err != nil {
		return err
	}
	type message struct {
		Name        string
		HoldsSecret bool
	}
	var messages []message
	for _, m := range file.Messages {
		messages = append(messages, message{Name: m.GoIdent.GoName, HoldsSecret: holdsSecret(m)})
	}
	return methods.Execute(
		plugin.NewGeneratedFile(file.GeneratedFilenamePrefix+"_redacted.pb.go", file.GoImportPath),
		map[string]any{
			"Source": file.Desc.Path(), "Package": file.GoPackageName,
			"Secrets": secrets, "Messages": messages,
		})
}

// generateMessages writes protoc-gen-go's file, in which String calls printed.
func generateMessages(plugin *protogen.Plugin, file *protogen.File) error {
	original := gengo.GenerateFile(plugin, file)
	original.Skip()
	content, err := original.Content()
	if err != nil {
		return err
	}
	leaking := []byte("return protoimpl.X.MessageStringOf(x)\n")
	safe := []byte("return printed(x)\n")
	if n := bytes.Count(content, leaking); n != len(file.Messages) {
		return fmt.Errorf("protoc-gen-go wrote %d of %d methods String in the known form: "+
			"replace the form that it writes now", n, len(file.Messages))
	}
	replaced := plugin.NewGeneratedFile(file.GeneratedFilenamePrefix+".pb.go", file.GoImportPath)
	_, err = replaced.Write(bytes.ReplaceAll(content, leaking, safe))
	return err
}

// holdsSecret reports whether a secret can be reached from a message. No message contains itself.
func holdsSecret(m *protogen.Message) bool {
	return slices.ContainsFunc(m.Fields, func(field *protogen.Field) bool {
		return slices.Contains(secrets, field.Desc.FullName()) ||
			field.Message != nil && holdsSecret(field.Message)
	})
}
