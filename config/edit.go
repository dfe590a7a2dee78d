package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

var (
	// ErrConnectionExists is wrapped by AddConnection's error when the file has a connection of
	// that name or alias.
	ErrConnectionExists = errors.New("connection already exists")
	// ErrConnectionNotFound is wrapped by RemoveConnection's error when the file has none of that
	// name.
	ErrConnectionNotFound = errors.New("connection not found")
)

// AddConnection saves a connection at the end of the configuration file at path, and makes the file
// when it is absent. It saves who may use the connection, and its Vault; Required, Timeout and
// Policy keep the file's defaults. The name of a file that the connection refers to is saved as an
// absolute path. Comments, order and layout of the rest stay. The new file replaces the old one
// atomically, has mode 0600, and passes Load, except that environment variables that it names may
// be unset. Errors: ErrConnectionExists, a Mistakes about the file or about the connection, or why
// it cannot be written. Simultaneous edits, by other processes too, wait for each other.
func AddConnection(path string, connection server.Connection) error {
	checked, err := check(connection)
	if err != nil {
		return fmt.Errorf("add connection: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("add connection: make the directory of the config file: %w: make it for "+
			"this user, or choose another place for the file", err)
	}
	err = editFile(path, func(text string, _ bool) (string, error) {
		after, _, err := checked.addTo(path, text)
		return after, err
	})
	if err != nil {
		return fmt.Errorf("add connection %s: %w", connection.Name, err)
	}
	return nil
}

// CheckNewConnection finds what AddConnection would refuse, and changes nothing. It returns how
// many connections the file has; 0 for an absent file. Its errors are AddConnection's.
func CheckNewConnection(path string, connection server.Connection) (already int, err error) {
	checked, err := check(connection)
	if err != nil {
		return 0, fmt.Errorf("add connection: %w", err)
	}
	text, err := readText(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	lines, _ := newLineEnds(string(text))
	_, already, err = checked.addTo(path, lines.unix)
	if err != nil {
		return 0, fmt.Errorf("add connection %s: %w", connection.Name, err)
	}
	return already, nil
}

// RemoveConnection removes a connection, and the comment directly above it, from the configuration
// file at path, in the way of AddConnection. Errors: ErrConnectionNotFound, a Mistakes about the
// file, for example when a caller rule still names the connection, or why the file cannot be read
// or written.
func RemoveConnection(path, name string) error {
	err := editFile(path, func(text string, exists bool) (string, error) {
		if !exists {
			return "", fmt.Errorf("no config file at %s: %w", path, fs.ErrNotExist)
		}
		before, err := parseForEdit(path, text)
		if err != nil {
			return "", err
		}
		index := before.indexOf(name)
		if index < 0 {
			return "", ErrConnectionNotFound
		}
		after, ok := removeConnection(text, index)
		return after, verify(path, after, ok, before,
			slices.Delete(slices.Clone(before.Connections), index, index+1))
	})
	if err != nil {
		return fmt.Errorf("remove the connection: %w", err)
	}
	return nil
}

// anyEnv answers for variables that only the running sidecar has.
func anyEnv(string) (string, bool) { return "set-elsewhere", true }

func parseForEdit(path, text string) (*Config, error) {
	cfg, mistakes := parse(source{name: path, directory: filepath.Dir(path), text: []byte(text)},
		anyEnv)
	return cfg, mistakes.err()
}

var errLayout = errors.New(
	"the layout of the file is too unusual to edit it safely: nothing was changed, edit it by hand")

// verify makes sure that an edited text means what was intended and nothing else. The edit works by
// lines and columns, and YAML has more layouts than the editor knows.
func verify(path, text string, edited bool, before *Config, want []server.Connection) error {
	if !edited {
		return errLayout
	}
	after, err := parseForEdit(path, text)
	if err != nil {
		return fmt.Errorf("the file would become invalid, nothing was changed: %w", err)
	}
	wanted := *before
	wanted.Connections = want
	if !wanted.same(after) {
		return errLayout
	}
	return nil
}

// same compares everything that a configuration says, but not where it says it: an edit moves
// lines.
func (c *Config) same(other *Config) bool {
	a, b := *c, *other
	a.origins, b.origins = nil, nil
	if len(a.Connections)+len(b.Connections) == 0 {
		a.Connections, b.Connections = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

func (c *Config) indexOf(name string) int {
	return slices.IndexFunc(c.Connections, func(connection server.Connection) bool {
		return connection.Name == name
	})
}

// knowsAny reports whether a connection has one of the names, as its alias perhaps.
func (c *Config) knowsAny(names []string) bool {
	return slices.ContainsFunc(c.Connections, func(connection server.Connection) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			return connection.Name == name || slices.Contains(connection.Aliases, name)
		})
	})
}

// item is a connection as YAML, for a block list or for a flow list.
type item struct{ block, flow string }

// checkedConnection is a connection that Load takes.
type checkedConnection struct {
	item   item
	parsed server.Connection
}

// addTo returns the text of the file at path with the connection at its end, and how many it had
// before.
func (c checkedConnection) addTo(path, text string) (after string, already int, err error) {
	if isBlank(text) {
		return withLineEnd(text) + "connections:\n" + indent(c.item.block, 2), 0, nil
	}
	text = withList(text)
	before, err := parseForEdit(path, text)
	if err != nil {
		return "", 0, err
	}
	if before.knowsAny(append([]string{c.parsed.Name}, c.parsed.Aliases...)) {
		return "", 0, ErrConnectionExists
	}
	after, ok := appendConnection(text, c.item)
	want := append(slices.Clone(before.Connections), before.withDefaults(c.parsed))
	return after, len(before.Connections), verify(path, after, ok, before, want)
}

// CheckConnection returns the connection as Load would read it, or the Mistakes that Load would
// find. So a connection from the command line passes the same checks as one from a file.
func CheckConnection(connection server.Connection) (server.Connection, error) {
	checked, err := check(connection)
	return checked.parsed, err
}

// check renders the connection and reads it back, so that Load's rules are the only ones.
func check(c server.Connection) (checkedConnection, error) {
	v := &c.Vault
	for _, file := range []*string{&v.RoleID.File, &v.SecretID.File, &v.TLS.CAFile,
		&v.TLS.ClientCertFile, &v.TLS.ClientKeyFile} {
		if err := makeAbsolute(file); err != nil {
			return checkedConnection{}, err
		}
	}
	rendered, err := render(c)
	if err != nil {
		return checkedConnection{}, err
	}
	// The flow form has every text in quotes. The block form loses blank space at the ends of some.
	cfg, mistakes := parse(source{text: []byte("connections: [" + rendered.flow + "]")}, anyEnv)
	for i := range mistakes {
		mistakes[i].Line, mistakes[i].Column = 0, 0
		mistakes[i].Path = strings.TrimPrefix(mistakes[i].Path, "connections[0].")
	}
	if err := mistakes.err(); err != nil {
		return checkedConnection{}, err
	}
	return checkedConnection{item: rendered, parsed: cfg.Connections[0]}, nil
}

func makeAbsolute(file *string) error {
	if *file == "" {
		return nil
	}
	absolute, err := filepath.Abs(*file)
	if err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	*file = absolute
	return nil
}

// saved is a mapping in the order in which it is written to the file. Zero values are left out.
type saved yaml.MapSlice

func (s *saved) add(key string, value any) {
	if v := reflect.ValueOf(value); !v.IsZero() && (v.Kind() != reflect.Slice || v.Len() > 0) {
		*s = append(*s, yaml.MapItem{Key: key, Value: value})
	}
}

func (s *saved) credential(key string, c login.Credential) {
	if c.File != "" {
		s.add(key+"_file", c.File)
		return
	}
	s.add(key, c.Value.Reveal())
}

// keysOf returns the connection under the keys of the file.
func keysOf(c server.Connection) yaml.MapSlice {
	var tls, s saved
	tls.add("ca_file", c.Vault.TLS.CAFile)
	tls.add("server_name", c.Vault.TLS.ServerName)
	tls.add("client_cert_file", c.Vault.TLS.ClientCertFile)
	tls.add("client_key_file", c.Vault.TLS.ClientKeyFile)
	s.add("name", c.Name)
	s.add("aliases", c.Aliases)
	s.add("scope", c.Scope.String())
	s.add("project_ids", c.ProjectIDs)
	s.add("paths", texts(c.Paths))
	s.add("address", c.Vault.Address)
	s.add("namespace", c.Vault.Namespace)
	s.add("auth_mount", c.Vault.AuthMount)
	s.credential("role_id", c.Vault.RoleID)
	s.credential("secret_id", c.Vault.SecretID)
	s.add("secret_id_wrapped", c.Vault.SecretIDWrapped)
	if c.Vault.SecretID.IsZero() {
		s = append(s, yaml.MapItem{Key: "bind_secret_id", Value: false})
	}
	s.add("tls", yaml.MapSlice(tls))
	return yaml.MapSlice(s)
}

func texts(patterns []server.PathPattern) []string {
	texts := make([]string, len(patterns))
	for i, pattern := range patterns {
		texts[i] = pattern.String()
	}
	return texts
}

func render(c server.Connection) (item, error) {
	keys := keysOf(c)
	block, err := yaml.Marshal([]yaml.MapSlice{keys})
	if err != nil {
		return item{}, errors.New("write the connection as YAML") // the cause may quote the role_id
	}
	flow, err := yaml.MarshalWithOptions(keys, yaml.JSON())
	if err != nil {
		return item{}, errors.New("write the connection as YAML")
	}
	return item{block: string(block), flow: strings.TrimSpace(string(flow))}, nil
}

// withDefaults returns what an added connection becomes under the file's own defaults.
func (c *Config) withDefaults(connection server.Connection) server.Connection {
	connection.Timeout, connection.Policy = c.defaults.Timeout, c.defaults.Policy
	return connection
}
