package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	header = `secret-sidecar is licensed under the Apache License 2.0: see LICENSE. It is linked from
the modules below and from Go's standard library. Their licences and notices follow the list.

The source of a module, unchanged: go mod download MODULE@VERSION. Those under MPL-2.0 say so in
their line; that command, or the module's page on https://pkg.go.dev/, gets their source at no cost.

The image also holds /etc/ssl/certs/ca-certificates.crt, a list of Mozilla's (MPL-2.0):
https://wiki.mozilla.org/CA

`
	line = "--------------------------------------------------------------------------------\n"
)

// text is a legal text with what it belongs to.
type text struct {
	owners []string
	body   string
}

// render writes the list of modules, then each text once, below the names of what it comes with.
func render(parts []*part) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(header)
	for _, one := range parts {
		if one.name == one.module {
			fmt.Fprintf(&out, "%s %s %s\n", one.module, one.version, one.licence)
		}
	}
	texts, err := textsOf(parts)
	if err != nil {
		return nil, err
	}
	for _, one := range texts {
		fmt.Fprintf(&out, "\n%s", line)
		for _, owner := range one.owners {
			fmt.Fprintln(&out, owner)
		}
		fmt.Fprintf(&out, "%s\n%s\n", line, one.body)
	}
	return out.Bytes(), nil
}

// textsOf reads all texts, in the order of those that they belong to.
func textsOf(parts []*part) ([]*text, error) {
	var texts []*text
	byBody := map[string]*text{}
	for _, one := range parts {
		for _, name := range one.files {
			content, err := os.ReadFile(filepath.Join(one.dir, name)) // #nosec G304 -- of a module
			if err != nil {
				return nil, err
			}
			body := plain(content)
			known := byBody[body]
			if known == nil {
				known = &text{body: body}
				byBody[body] = known
				texts = append(texts, known)
			}
			known.owners = append(known.owners, one.name+", "+name)
		}
	}
	return texts, nil
}

// plain is a text without what differs for nobody: carriage returns, blank ends and blank edges.
func plain(content []byte) string {
	lines := strings.Split(strings.ReplaceAll(string(content), "\r\n", "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\f")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}
