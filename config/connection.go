package config

import (
	"math"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

func (r *reader) connections(v value, defaults Connection) []Connection {
	if !v.present() || v.isNull() {
		v.mistake(`name at least one connection, or write "connections: []" for none`)
		return nil
	}
	var connections []Connection
	for _, entry := range v.list() {
		connections = append(connections, r.connection(entry.mapping(connectionKeys...), defaults))
	}
	return connections
}

// connection reads one connection; c holds the defaults.
func (r *reader) connection(m mapping, c Connection) Connection {
	if !m.valid {
		return c
	}
	c.Name = r.name(m.at("name"))
	c.Scope, c.ProjectIDs = m.scope()
	if m.at("address").present() || !m.meant["address"] {
		c.Address = m.at("address").address()
	}
	c.Namespace = strings.Trim(m.at("namespace").text(""), "/")
	c.AuthMount = m.at("auth_mount").authMount(c.AuthMount)
	c.RoleID = r.credential(m, "role_id")
	c.SecretID = r.credential(m, "secret_id")
	c.SecretIDWrapped = m.at("secret_id_wrapped").boolean(false)
	c.TLS = r.tls(m.at("tls"))
	c.Required = m.at("required").boolean(c.Required)
	c.Timeout = m.at("timeout").duration(c.Timeout, 1)
	c.MaxWaiting = int(m.at("max_waiting").integer(int64(c.MaxWaiting), 1, math.MaxInt32))
	c.Cache = m.at("cache").policy(c.Cache)

	m.checkCredentials(c.SecretIDWrapped)
	return c
}

var namePattern = regexp.MustCompile(`^[a-z0-9-]+$`)

// name reads a connection's name and notes one that another connection has.
func (r *reader) name(v value) string {
	name := v.requiredText()
	switch line, taken := r.names[name]; {
	case name == "":
	case !namePattern.MatchString(name):
		v.mistake(`may hold only a-z, 0-9 and "-"`)
	case taken:
		v.mistake("another connection has this name, on line %d: names are unique", line)
	default:
		r.names[name] = v.origin().Line
	}
	return name
}

func (m mapping) scope() (Scope, []string) {
	v, projects := m.at("scope"), m.at("project_ids")
	ids := projects.texts()
	switch {
	case !v.present() && projects.present():
		v.mistake("is missing: project_ids need \"scope: project\"")
		return 0, nil
	case !v.present(), v.text("") == ScopePlatform.String():
		if projects.present() {
			projects.mistake(`belongs to "scope: project": remove it, or change the scope`)
		}
		return ScopePlatform, nil
	case v.text("") == ScopeProject.String():
		if !projects.present() {
			v.mistake("scope project needs project_ids: name at least one")
		}
		return ScopeProject, ids
	}
	message := "want platform or project: platform serves every project, project serves its project_ids alone"
	if meant := nearest(v.scalarText(), []string{ScopePlatform.String(), ScopeProject.String()}); meant != "" {
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
	if problem := addressProblem(text); problem != "" {
		v.mistake("%s", problem)
	}
	return strings.TrimSuffix(text, "/")
}

// addressProblem returns what is wrong with a Vault address, or "".
func addressProblem(text string) string {
	const want = "want http:// or https://, a host and perhaps a port, such as https://vault.example:8200"
	address, err := url.Parse(text)
	switch {
	case strings.Contains(text, "${"), strings.Contains(text, "{{"):
		return want + "; variables are not replaced in this file"
	case !strings.Contains(text, "://"):
		return want + "; put https:// in front of this one"
	case err != nil, address.Opaque != "", address.Scheme != "http" && address.Scheme != "https":
		return want
	case address.User != nil:
		return "must not hold a user or a password: " + want
	case address.Path == "/v1" || strings.HasPrefix(address.Path, "/v1/"):
		return "must not hold a path: leave /v1 out, the sidecar adds it"
	case address.Path != "" && address.Path != "/":
		return "must not hold a path: " + want
	case strings.ContainsAny(text, "?#"):
		return `must not hold "?" or "#": ` + want
	case address.Hostname() == "" || strings.ContainsFunc(address.Host, unicode.IsSpace):
		return want
	}
	return portProblem(address)
}

func portProblem(address *url.URL) string {
	port := address.Port()
	if port == "" && !strings.HasSuffix(address.Host, ":") {
		return ""
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return "the port must be a number from 1 to 65535"
	}
	return ""
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
	case slices.ContainsFunc(segments, func(s string) bool { return s == "" || s == "." || s == ".." }):
		v.mistake(`must be a mount path such as approle: no empty, "." or ".." part`)
	case len(segments) > 1 && segments[0] == "auth":
		v.mistake("leave the leading auth/ out")
	}
	return trimmed
}

func (r *reader) tls(v value) TLS {
	m := v.mapping(tlsKeys...)
	cert, key := m.at("client_cert_file"), m.at("client_key_file")
	switch {
	case cert.present() && !key.present():
		cert.mistake("needs client_key_file beside it")
	case key.present() && !cert.present():
		key.mistake("needs client_cert_file beside it")
	}
	return TLS{
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
		name = filepath.Join(r.folder, name)
	}
	return name
}
