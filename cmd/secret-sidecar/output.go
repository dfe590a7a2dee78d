package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// printJSON prints a message with the field names of the proto file, indented. Empty fields are printed too, so
// that a script can tell the empty value from none.
func printJSON(w io.Writer, message proto.Message) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(message)
	if err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	var indented bytes.Buffer // protojson's own spacing differs from build to build
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return fmt.Errorf("indent the answer: %w", err)
	}
	_, err = fmt.Fprintln(w, indented.String())
	return err
}
