package main

import (
	"encoding/json"
	"io"
	"strings"
	"text/template"
)

// welcome says what `dev` runs and what to try with it.
var welcome = template.Must(template.New("welcome").Funcs(template.FuncMap{"sh": shellWord,
	"json": jsonText}).Parse(
	`secret-sidecar runs on a development Vault, in memory: nothing outlives it. Ctrl-C ends it.

  Vault address   {{.Address}}
  Root token      {{.RootToken}}
  Socket          {{.Socket}}

Try, in another terminal:

  export SECRET_SIDECAR_SOCKET={{sh .Socket}}
  secret-sidecar connections test default
{{- range .References}}
  secret-sidecar resolve {{sh .}} --output json
{{- end}}
  secret-sidecar connections list

  grpcurl -plaintext -unix -d {{json "path" .First | sh}} {{sh .Socket}} \
    secretsidecar.v1.SecretService/Resolve

Rotate the secret in Vault, drop the cached copy, and resolve again:

  curl -H {{print "X-Vault-Token: " .RootToken | sh}} -d '{"data": {{json .Key "rotated"}}}' {{.Address}}/v1/{{.Path}}
  secret-sidecar invalidate {{sh .First}}
  secret-sidecar resolve {{sh .First}} --output json
`))

func printWelcome(w io.Writer, vault *devVault, socket string) error {
	return welcome.Execute(w, map[string]any{
		"Address":    vault.address,
		"RootToken":  vault.handler.RootToken(),
		"Socket":     socket,
		"References": vault.references,
		"First":      vault.references[0],
		"Path":       vault.first.Path,
		"Key":        vault.first.Key,
	})
}

// shellWord quotes the text for a shell where that is needed.
func shellWord(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:="
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// jsonText is an object with one string.
func jsonText(name, value string) (string, error) {
	text, err := json.Marshal(map[string]string{name: value})
	return string(text), err
}
