package proto_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// Every secret in these tests is hidden, every other string is shown.
const hidden, shown = "of-Vault", "no-secret"

// secrets are the fields that must not be printed.
var secrets = []protoreflect.FullName{
	"secretsidecar.v1.ConnectionSpec.secret_id",
	"secretsidecar.v1.ResolveResponse.value",
	"secretsidecar.v1.ScanRequest.data",
}

func TestAFieldThatIsNamedLikeASecretIsOne(t *testing.T) {
	named := regexp.MustCompile(`(^|_)(value|data|secret|secret_id|token|password|credential|key_pem)$`)
	var found []protoreflect.FullName
	for _, m := range messageTypes(t) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			field := fields.Get(i)
			kind := field.Kind()
			isText := kind == protoreflect.StringKind || kind == protoreflect.BytesKind
			if isText && named.MatchString(string(field.Name())) {
				found = append(found, field.FullName())
			}
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, secrets) {
		t.Errorf("named like secrets: %q\ntested as secrets: %q\n"+
			"add the new one here and in internal/protoc-gen-go-redacted", found, secrets)
	}
}

func TestNoWayOfPrintingAMessageShowsASecret(t *testing.T) {
	for _, m := range filledMessages(t) {
		before := proto.Clone(m)
		for way, text := range waysOfPrinting(t, m) {
			for _, leak := range encodings(hidden) {
				if strings.Contains(text, leak) {
					t.Errorf("%T shows a secret by %s: %s", m, way, text)
				}
			}
		}
		if !proto.Equal(m, before) {
			t.Errorf("printing a %T has changed it", m)
		}
	}
}

func TestWhatIsNoSecretIsPrinted(t *testing.T) {
	for _, m := range filledMessages(t) {
		got := strings.Count(fmt.Sprint(m), shown)
		all := strings.Count(prototext.MarshalOptions{}.Format(m), shown)
		if got != all {
			t.Errorf("%T shows %d of %d fields: %v", m, got, all, m)
		}
	}
	if text := (&pb.ResolveResponse{Value: hidden}).String(); text != `value:"[redacted]"` {
		t.Errorf("a secret is printed as %s", text)
	}
	if text := (*pb.ResolveResponse)(nil).String(); text != "<nil>" {
		t.Errorf("a nil pointer is printed as %s", text)
	}
}

func TestTheWireFormsHoldTheSecret(t *testing.T) {
	m := &pb.ResolveResponse{Value: hidden}
	for name, marshal := range map[string]func(proto.Message) ([]byte, error){
		"proto": proto.Marshal, "protojson": protojson.Marshal, "prototext": prototext.Marshal,
	} {
		if text, err := marshal(m); err != nil || !bytes.Contains(text, []byte(hidden)) {
			t.Errorf("%s wrote %q, error %v", name, text, err)
		}
	}
}

// messageTypes returns every message of the API.
func messageTypes(t *testing.T) []protoreflect.MessageType {
	t.Helper()
	var all []protoreflect.MessageType
	descriptors := pb.File_secretsidecar_v1_secret_service_proto.Messages()
	for i := range descriptors.Len() {
		m, err := protoregistry.GlobalTypes.FindMessageByName(descriptors.Get(i).FullName())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// filledMessages returns every message of the API with every field set, once for each alternative
// of its oneofs.
func filledMessages(t *testing.T) []proto.Message {
	t.Helper()
	var all []proto.Message
	for _, m := range messageTypes(t) {
		for alternative := range 2 {
			filled := m.New()
			fill(filled, alternative)
			all = append(all, filled.Interface())
		}
	}
	return all
}

// fill sets every field of a message, and one that a later version may bring.
func fill(m protoreflect.Message, alternative int) {
	later := protowire.AppendTag(nil, 10_000, protowire.BytesType)
	m.SetUnknown(protowire.AppendString(later, hidden))
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		oneof := field.ContainingOneof()
		switch {
		case oneof != nil && oneof.Fields().Get(alternative%oneof.Fields().Len()) != field:
		case field.IsList() && field.Message() != nil:
			fill(m.Mutable(field).List().AppendMutable().Message(), alternative)
		case field.IsList():
			m.Mutable(field).List().Append(scalar(field))
		case field.Message() != nil:
			fill(m.Mutable(field).Message(), alternative)
		default:
			m.Set(field, scalar(field))
		}
	}
}

// scalar returns the value that fill gives to a field which holds no message. A map is not provided
// for, neither here nor in the generated code.
func scalar(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch {
	case field.Kind() != protoreflect.StringKind:
		return field.Default()
	case slices.Contains(secrets, field.FullName()):
		return protoreflect.ValueOfString(hidden)
	}
	return protoreflect.ValueOfString(shown)
}

// waysOfPrinting returns what a program prints of a message, and of what holds its pointer, by the
// way in which it prints.
func waysOfPrinting(t *testing.T, m proto.Message) map[string]string {
	t.Helper()
	pointer := reflect.ValueOf(m)
	list := reflect.Append(reflect.Zero(reflect.SliceOf(pointer.Type())), pointer)
	byName := reflect.MakeMap(reflect.MapOf(reflect.TypeFor[string](), pointer.Type()))
	byName.SetMapIndex(reflect.ValueOf("name"), pointer)
	printed := map[string]string{"String": m.(fmt.Stringer).String()}
	for kind, value := range map[string]any{
		"message": m, "slice": list.Interface(), "map": byName.Interface(), "array": [1]any{m},
		"struct": struct{ M proto.Message }{m}, "pointer to a struct": &struct{ M any }{m},
	} {
		maps.Copy(printed, formatted(kind, value))
		maps.Copy(printed, logged(kind, value))
		text, err := json.Marshal(value)
		if err != nil {
			t.Errorf("encoding/json cannot write %T: %v", value, err)
		}
		printed["encoding/json of a "+kind] = string(text)
		var page strings.Builder
		if err := template.Must(template.New("").Parse("{{.}}")).Execute(&page, value); err != nil {
			t.Errorf("text/template cannot write %T: %v", value, err)
		}
		printed["text/template of a "+kind] = page.String()
	}
	// fmt calls no method of what stands in an unexported field, and prints its address by these
	// verbs.
	for _, format := range []string{"%v", "%+v", "%#v"} {
		printed[format+" of an unexported field"] = fmt.Sprintf(format, struct{ m any }{m})
	}
	return printed
}

// formatted returns what fmt prints by each verb, and by two that are none. It leaves out %w for
// what is no error: fmt calls no method then, and go vet, which go test runs, refuses it.
func formatted(kind string, value any) map[string]string {
	printed := map[string]string{}
	for _, flag := range []string{"", "+", "#", "- 9"} {
		for _, verb := range "vsqxXdboctefgUTpyz" {
			format := "%" + flag + string(verb)
			printed[format+" of a "+kind] = fmt.Sprintf(format, value)
		}
	}
	return printed
}

// logged returns what log/slog writes.
func logged(kind string, value any) map[string]string {
	var text, lines bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("got", "answer", value)
	slog.New(slog.NewJSONHandler(&lines, nil)).Info("got", "answer", value)
	return map[string]string{
		"slog's text of a " + kind: text.String(), "slog's JSON of a " + kind: lines.String(),
	}
}

// encodings returns the forms that a text takes as fmt and encoding/json print it.
func encodings(text string) []string {
	lower := hex.EncodeToString([]byte(text))
	spaced := fmt.Sprintf("% x", text)
	numbers := strings.Trim(fmt.Sprintf("%d", []byte(text)), "[]")
	goSyntax := strings.Trim(fmt.Sprintf("%#v", []byte(text)), "[]byte{}")
	return []string{
		text, lower, strings.ToUpper(lower), spaced, strings.ToUpper(spaced), numbers, goSyntax,
		base64.StdEncoding.EncodeToString([]byte(text)),
	}
}
