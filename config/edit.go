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

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

var (
	// ErrConnectionExists is wrapped by AddConnection's error when the file has a connection of that name.
	ErrConnectionExists = errors.New("connection already exists")
	// ErrConnectionNotFound is wrapped by RemoveConnection's error when the file has none of that name.
	ErrConnectionNotFound = errors.New("connection not found")
)

// NewConnection is a connection for AddConnection to save. Fields left zero are left out of the file, so that
// the defaults apply.
type NewConnection struct {
	// Name is made of a-z, 0-9 and "-"; required.
	Name string
	// Scope tells who may use it; required.
	Scope Scope
	// ProjectIDs are the projects that may use it; required for ScopeProject, and only there.
	ProjectIDs []string
	// Address is http(s)://host[:port]; required.
	Address string
	// Namespace and AuthMount are as in Connection.
	Namespace, AuthMount string
	// RoleID is required. It is saved in the file as it is.
	RoleID redact.String
	// SecretIDFile is saved as a reference: the file's content is not copied. A relative name counts from the
	// working folder and is saved as an absolute one.
	SecretIDFile string
	// NoSecretID says that the role has no secret_id; it is saved as bind_secret_id: false.
	NoSecretID bool
	// SecretIDWrapped says that the file holds a response-wrapping token.
	SecretIDWrapped bool
	// TLS names files in the same way as SecretIDFile.
	TLS TLS
}

// AddConnection saves a connection at the end of the configuration file at path, which it makes when it is
// absent. Comments, order and layout of the rest stay. The new file replaces the old one in one step, has
// mode 0600, and is as valid as Load wants it, except that environment variables that it names may be unset.
// Errors: ErrConnectionExists, a Mistakes about the file or about the connection, or why it cannot be written.
// Simultaneous edits, of other processes too, wait for each other.
func AddConnection(path string, connection NewConnection) error {
	checked, err := connection.check()
	if err != nil {
		return fmt.Errorf("add connection: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("add connection: make the folder of the config file: %w: make it for this user, or choose another place for the file", err)
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

// CheckNewConnection finds what AddConnection would refuse, and changes nothing. It returns how many
// connections the file has already: 0 for one that is absent. Errors are AddConnection's.
func CheckNewConnection(path string, connection NewConnection) (already int, err error) {
	checked, err := connection.check()
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

// RemoveConnection removes a connection, and the comment right above it, from the configuration file at path,
// in the same way as AddConnection. Errors: ErrConnectionNotFound, a Mistakes about the file, for example when
// a caller rule still names the connection, or why the file cannot be read or written.
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
		return after, verify(path, after, ok, before, slices.Delete(slices.Clone(before.Connections), index, index+1))
	})
	if err != nil {
		return fmt.Errorf("remove the connection: %w", err)
	}
	return nil
}

// anyEnv answers for variables that only the running sidecar has.
func anyEnv(string) (string, bool) { return "set-elsewhere", true }

func parseForEdit(path, text string) (*Config, error) {
	cfg, mistakes := parse(source{name: path, folder: filepath.Dir(path), text: []byte(text)}, anyEnv)
	return cfg, mistakes.err()
}

var errLayout = errors.New("the layout of the file is too unusual to edit it safely: nothing was changed, edit it by hand")

// verify makes sure that an edited text means what was meant and nothing else: the editing goes by lines and
// columns, and YAML has more ways to lay out a file than it knows.
func verify(path, text string, edited bool, before *Config, want []Connection) error {
	if !edited {
		return errLayout
	}
	after, err := parseForEdit(path, text)
	if err != nil {
		return fmt.Errorf("the file would become invalid, nothing was changed: %w", err)
	}
	same := reflect.DeepEqual(after.Socket, before.Socket) && reflect.DeepEqual(after.Callers, before.Callers) &&
		after.CallerLimits == before.CallerLimits && reflect.DeepEqual(after.TestConnection, before.TestConnection) &&
		reflect.DeepEqual(after.Audit, before.Audit) && after.NoReflection == before.NoReflection && after.Hardening == before.Hardening && after.Cache == before.Cache && len(after.Connections) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = reflect.DeepEqual(after.Connections[i], want[i])
	}
	if !same {
		return errLayout
	}
	return nil
}

func (c *Config) indexOf(name string) int {
	return slices.IndexFunc(c.Connections, func(connection Connection) bool { return connection.Name == name })
}

// item is a connection as YAML, to stand in a block list or in a flow list.
type item struct{ block, flow string }

// checkedConnection is a connection that Load takes.
type checkedConnection struct {
	item   item
	parsed Connection
}

// addTo returns the text of the file at path with the connection at its end, and how many it had before.
func (c checkedConnection) addTo(path, text string) (after string, already int, err error) {
	if isBlank(text) {
		return withLineEnd(text) + "connections:\n" + indent(c.item.block, 2), 0, nil
	}
	text = withList(text)
	before, err := parseForEdit(path, text)
	if err != nil {
		return "", 0, err
	}
	if before.indexOf(c.parsed.Name) >= 0 {
		return "", 0, ErrConnectionExists
	}
	after, ok := appendConnection(text, c.item)
	want := append(slices.Clone(before.Connections), before.withDefaults(c.parsed))
	return after, len(before.Connections), verify(path, after, ok, before, want)
}

// check renders the connection and reads it back, so that Load's rules are the only ones.
func (n NewConnection) check() (checkedConnection, error) {
	files := []*string{&n.SecretIDFile, &n.TLS.CAFile, &n.TLS.ClientCertFile, &n.TLS.ClientKeyFile}
	for _, file := range files {
		if err := makeAbsolute(file); err != nil {
			return checkedConnection{}, err
		}
	}
	rendered, err := n.render()
	if err != nil {
		return checkedConnection{}, err
	}
	cfg, mistakes := parse(source{text: []byte("connections:\n" + rendered.block)}, anyEnv)
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
		return fmt.Errorf("find the working folder: %w", err)
	}
	*file = absolute
	return nil
}

// savedConnection has the keys of the file in the order in which they are written.
type savedConnection struct {
	Name            string    `yaml:"name"`
	Scope           string    `yaml:"scope"`
	ProjectIDs      []string  `yaml:"project_ids,omitempty"`
	Address         string    `yaml:"address"`
	Namespace       string    `yaml:"namespace,omitempty"`
	AuthMount       string    `yaml:"auth_mount,omitempty"`
	RoleID          string    `yaml:"role_id"`
	SecretIDFile    string    `yaml:"secret_id_file,omitempty"`
	SecretIDWrapped bool      `yaml:"secret_id_wrapped,omitempty"`
	BindSecretID    *bool     `yaml:"bind_secret_id,omitempty"`
	TLS             *savedTLS `yaml:"tls,omitempty"`
}

type savedTLS struct {
	CAFile         string `yaml:"ca_file,omitempty"`
	ServerName     string `yaml:"server_name,omitempty"`
	ClientCertFile string `yaml:"client_cert_file,omitempty"`
	ClientKeyFile  string `yaml:"client_key_file,omitempty"`
}

func (n NewConnection) render() (item, error) {
	saved := savedConnection{
		Name: n.Name, Scope: n.Scope.String(), ProjectIDs: n.ProjectIDs, Address: n.Address,
		Namespace: n.Namespace, AuthMount: n.AuthMount,
		RoleID: n.RoleID.Reveal(), SecretIDFile: n.SecretIDFile, SecretIDWrapped: n.SecretIDWrapped,
	}
	if n.NoSecretID {
		saved.BindSecretID = new(bool)
	}
	if n.TLS != (TLS{}) {
		tls := savedTLS(n.TLS)
		saved.TLS = &tls
	}
	block, err := yaml.Marshal([]savedConnection{saved})
	if err != nil {
		return item{}, errors.New("write the connection as YAML") // the cause may quote the role_id
	}
	flow, err := yaml.MarshalWithOptions(saved, yaml.JSON())
	if err != nil {
		return item{}, errors.New("write the connection as YAML")
	}
	return item{block: string(block), flow: strings.TrimSpace(string(flow))}, nil
}

// withDefaults is what an added connection becomes under the file's own defaults.
func (c *Config) withDefaults(connection Connection) Connection {
	connection.Timeout, connection.Cache = c.defaults.Timeout, c.defaults.Cache
	return connection
}
