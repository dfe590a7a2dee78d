package config

import (
	"fmt"
	"strings"
	"testing"
)

// FuzzLoad puts a credential between two pieces of text: nothing panics, and no mistake shows it,
// wherever in the file it ends up.
func FuzzLoad(f *testing.F) {
	const secret = "hunter2marker"
	const connection = "connections:\n  - name: a\n    scope: platform\n    address: http://v\n  " +
		"  role_id: r\n"
	for _, seed := range [][2]string{
		{connection + "    secret_id: ", "\n"},
		{connection + "    secret_id ", "\n    timeout: 1s\n"},
		{connection + "    secret_id: \"", "\n"},
		{connection + "    secret_id: |", "\n      x\n"},
		{"callers: [{uid: ", ", methods: [x]}]\n" + connection},
		{"socket: {mode: ", "}\ncache: {max_bytes: 1}\ndefaults: {timeout: 1s}\n" + connection},
		{"? ", ": &a *a !t {[\n"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, secret) {
			t.Skip()
		}
		text := []byte(before + secret + after)
		_, mistakes := parse(source{name: "config.yaml", directory: "/", text: text},
			func(string) (string, bool) {
				return "", false
			})
		if strings.Contains(mistakes.Error(), secret) {
			t.Errorf("a mistake shows the credential: %v", mistakes)
		}
		for _, mistake := range mistakes {
			if mistake.Message == "" || strings.Contains(fmt.Sprintf("%#v", mistake), secret) {
				t.Errorf("mistake %#v", mistake)
			}
		}
	})
}
