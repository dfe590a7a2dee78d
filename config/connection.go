package config

import (
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

func (r *reader) connections(v value, defaults server.Connection) []server.Connection {
	if !v.present() || v.isNull() {
		v.mistake(`name at least one connection, or write "connections: []" for none`)
		return nil
	}
	var connections []server.Connection
	for _, entry := range v.list() {
		connections = append(connections, r.connection(entry.mapping(connectionKeys...), defaults))
	}
	return connections
}

// connection reads one connection; c holds the defaults.
func (r *reader) connection(m mapping, c server.Connection) server.Connection {
	if !m.valid {
		return c
	}
	c.Name = m.at("name").requiredText()
	r.claim(m.at("name"), c.Name)
	c.Aliases = r.aliases(m.at("aliases"))
	c.Scope, c.ProjectIDs = m.scope()
	c.Paths = m.at("paths").pathPatterns()
	if m.at("address").present() || !m.meant["address"] {
		c.Vault.Address = m.at("address").address()
	}
	c.Vault.Namespace = strings.Trim(m.at("namespace").text(""), "/")
	c.Vault.AuthMount = m.at("auth_mount").authMount(c.Vault.AuthMount)
	c.Vault.RoleID = r.credential(m, "role_id")
	c.Vault.SecretID = r.credential(m, "secret_id")
	c.Vault.SecretIDWrapped = m.at("secret_id_wrapped").boolean(false)
	c.Vault.TLS = r.tls(m.at("tls"))
	c.Required = m.at("required").boolean(c.Required)
	c.Timeout = m.at("timeout").duration(c.Timeout, 1)
	c.Policy.MaxWaiting = int(m.at("max_waiting").integer(int64(c.Policy.MaxWaiting), 1,
		math.MaxInt32))
	c.Policy = m.at("cache").policy(c.Policy)

	m.checkCredentials(c.Vault.SecretIDWrapped)
	return c
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// aliases reads other names of a connection.
func (r *reader) aliases(v value) []string {
	aliases := v.texts()
	if aliases == nil {
		return nil
	}
	for i, entry := range v.list() {
		r.claim(entry, aliases[i])
	}
	return aliases
}

// claim notes a name or an alias that is not one, or that is taken.
func (r *reader) claim(v value, name string) {
	switch line, taken := r.names[name]; {
	case name == "":
	case !namePattern.MatchString(name):
		v.mistake(`may hold only letters from a to z, digits, "-" and "_", at most 64 of them`)
	case taken:
		v.mistake("another connection has this name, on line %d: names are unique, aliases among them", line)
	default:
		r.names[name] = v.origin().Line
	}
}

func (m mapping) scope() (server.Scope, []string) {
	v, projects := m.at("scope"), m.at("project_ids")
	ids := projects.texts()
	switch {
	case !v.present() && projects.present():
		v.mistake("is missing: project_ids need \"scope: project\"")
		return 0, nil
	case !v.present(), v.text("") == server.ScopePlatform.String():
		if projects.present() {
			projects.mistake(`belongs to "scope: project": remove it, or change the scope`)
		}
		return server.ScopePlatform, nil
	case v.text("") == server.ScopeProject.String():
		if !projects.present() {
			v.mistake("scope project needs project_ids: name at least one")
		}
		return server.ScopeProject, ids
	}
	message := "want platform or project: platform serves every project, project serves its " +
		"project_ids alone"
	if meant := nearest(v.scalarText(),
		[]string{server.ScopePlatform.String(), server.ScopeProject.String()}); meant != "" {
		message = "want platform or project: did you mean " + meant + "?"
	}
	v.mistake("%s", message)
	return 0, nil
}

// address reads http(s)://host[:port] and drops a trailing slash.
func (v value) address() string {
	text := v.requiredText()
	if text == "" {
		return ""
	}
	if problem := vault.AddressProblem(text); problem != "" {
		v.mistake("%s", problem)
	}
	return strings.TrimSuffix(text, "/")
}

func (v value) authMount(fallback string) string {
	if !v.present() {
		return fallback
	}
	mount := v.filledText()
	trimmed := strings.Trim(mount, "/")
	segments := strings.Split(trimmed, "/")
	switch {
	case mount == "":
	case slices.ContainsFunc(segments, func(s string) bool {
		return s == "" || s == "." || s == ".."
	}):
		v.mistake(`must be a mount path such as approle: no empty, "." or ".." part`)
	case len(segments) > 1 && segments[0] == "auth":
		v.mistake("leave the leading auth/ out")
	}
	return trimmed
}

func (r *reader) tls(v value) vault.TLS {
	m := v.mapping(tlsKeys...)
	cert, key := m.at("client_cert_file"), m.at("client_key_file")
	switch {
	case cert.present() && !key.present():
		cert.mistake("needs client_key_file beside it")
	case key.present() && !cert.present():
		key.mistake("needs client_cert_file beside it")
	}
	return vault.TLS{
		CAFile:         r.file(m.at("ca_file")),
		ServerName:     m.at("server_name").text(""),
		ClientCertFile: r.file(cert),
		ClientKeyFile:  r.file(key),
	}
}

// file reads a file's name, makes it absolute and remembers where it stands.
func (r *reader) file(v value) string {
	name := v.filledText()
	if name == "" {
		return ""
	}
	r.origins[v.path] = v.origin()
	if !filepath.IsAbs(name) {
		name = filepath.Join(r.directory, name)
	}
	return name
}
