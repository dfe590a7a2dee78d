package server

import (
	"reflect"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// eachChange calls visit once for each field below v, in structs in it too, while that field has another value.
func eachChange(t *testing.T, v reflect.Value, name string, visit func(name string)) {
	t.Helper()
	before := reflect.ValueOf(v.Interface())
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Struct:
		if credential, ok := v.Interface().(redact.String); ok {
			v.Set(reflect.ValueOf(redact.New(credential.Reveal() + "x")))
			break
		}
		for i := range v.NumField() {
			eachChange(t, v.Field(i), name+"."+v.Type().Field(i).Name, visit)
		}
		return
	default:
		t.Fatalf("teach this test to change %s, a %s", name, v.Type())
	}
	visit(name)
	v.Set(before)
}

func TestAReloadNoticesEveryFieldAndOnlyThoseOfTheVaultOpenASession(t *testing.T) {
	var first, wanted Connection
	running := &connection{Connection: first, session: &session{config: conn.Config{Settings: first.Vault}}}
	fields := 0
	eachChange(t, reflect.ValueOf(&wanted).Elem(), "", func(name string) {
		fields++
		next := running.unchanged(wanted)
		if strings.HasPrefix(name, ".Vault.") {
			if next != nil {
				t.Errorf("%s: the session is kept, and what is cached with it", name)
			}
			return
		}
		switch {
		case next == nil:
			t.Errorf("%s: costs a login and what is cached", name)
		case next.session != running.session || !reflect.DeepEqual(next.Connection, wanted):
			t.Errorf("%s: got %+v, want %+v with the session that runs", name, next.Connection, wanted)
		}
	})
	if fields < 20 {
		t.Errorf("only %d fields were changed", fields)
	}
}
