package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// printJSON prints a message indented, with the field names of the proto file. It prints empty
// fields too, so that a script can tell an empty value from none.
func printJSON(w io.Writer, message proto.Message) error {
	return printSpaced(w, message, func(into *bytes.Buffer, text []byte) error {
		return json.Indent(into, text, "", "  ")
	})
}

// printJSONLine is printJSON on one line.
func printJSONLine(w io.Writer, message proto.Message) error {
	return printSpaced(w, message, json.Compact)
}

// printSpaced prints a message with its own spacing: protojson's differs from build to build on
// purpose.
func printSpaced(w io.Writer, message proto.Message,
	space func(into *bytes.Buffer, text []byte) error) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true,
		EmitDefaultValues: true}.Marshal(message)
	if err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	var spaced bytes.Buffer
	if err := space(&spaced, text); err != nil {
		return fmt.Errorf("space the answer: %w", err)
	}
	_, err = fmt.Fprintln(w, spaced.String())
	return err
}
