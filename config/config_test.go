package config_test

import (
	"reflect"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

func TestAChangeOfEveryFieldThatNeedsAStartIsNoticed(t *testing.T) {
	fields := reflect.TypeFor[config.AtStart]()
	for i := range fields.NumField() {
		var next config.AtStart
		field := reflect.ValueOf(&next).Elem().Field(i)
		if field.Kind() == reflect.Struct {
			field = field.Field(0)
		}
		switch field.Kind() {
		case reflect.Struct: // a credential
			field.Set(reflect.ValueOf(redact.New("changed")))
		case reflect.String:
			field.SetString("changed")
		case reflect.Bool:
			field.SetBool(true)
		default:
			field.SetInt(1)
		}
		key := fields.Field(i).Tag.Get("key")
		if got := (config.AtStart{}).Changed(next); key == "" ||
			!reflect.DeepEqual(got, []string{key}) {
			t.Errorf("a change of %s is told as %q", fields.Field(i).Name, got)
		}
	}
}
