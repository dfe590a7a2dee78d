package config

import (
	"errors"
	"strings"
	"unicode"

	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// ErrNoEnvironment is returned by FromEnv when VAULT_ADDR is not set: the environment describes no
// connection.
var ErrNoEnvironment = errors.New("VAULT_ADDR is not set")

// DefaultConnectionName is the name of the connection that FromEnv makes.
const DefaultConnectionName = "default"

// FromEnv returns the configuration that VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT, VAULT_ROLE_ID
// or VAULT_ROLE_ID_FILE, and VAULT_SECRET_ID or VAULT_SECRET_ID_FILE describe: one connection
// called "default" of scope platform, with defaults for everything else. An empty variable counts
// as unset. Errors: ErrNoEnvironment when VAULT_ADDR is not set, else a Mistakes that names the
// variables to correct.
func FromEnv(getenv LookupEnv) (*Config, error) {
	env := environment{getenv: getenv, origins: origins{}}
	address := env.text("VAULT_ADDR")
	if address == "" {
		return nil, ErrNoEnvironment
	}
	if problem := vault.AddressProblem(address); problem != "" && len(env.mistakes) == 0 {
		env.mistake("VAULT_ADDR", problem)
	}
	c := defaultConnection()
	c.Name, c.Scope = DefaultConnectionName, server.ScopePlatform
	c.Vault.Address = strings.TrimSuffix(address, "/")
	c.Vault.Namespace = strings.Trim(env.text("VAULT_NAMESPACE"), "/")
	c.Vault.TLS.CAFile = env.file("VAULT_CACERT", "tls.ca_file")
	c.Vault.RoleID = env.credential("VAULT_ROLE_ID", "role_id_file")
	c.Vault.SecretID = env.credential("VAULT_SECRET_ID", "secret_id_file")
	if err := env.mistakes.err(); err != nil {
		return nil, err
	}
	cfg := newConfig()
	cfg.Connections, cfg.origins = []server.Connection{c}, env.origins
	return cfg, nil
}

type environment struct {
	getenv   LookupEnv
	origins  origins
	mistakes Mistakes
}

func (e *environment) mistake(name, message string) {
	e.mistakes = append(e.mistakes, Mistake{Path: name, Message: message})
}

func (e *environment) text(name string) string {
	text, _ := e.getenv(name)
	text = strings.TrimRight(text, "\r\n")
	if strings.ContainsFunc(text, unicode.IsControl) {
		e.mistake(name, controlCharacter)
	}
	return text
}

// file reads a file's name, which the configuration file would have under the given key.
func (e *environment) file(name, key string) string {
	e.origins["connections[0]."+key] = Mistake{Path: name}
	return e.text(name)
}

func (e *environment) credential(name, fileKey string) login.Credential {
	text, _ := e.getenv(name)
	file := e.file(name+"_FILE", fileKey)
	switch {
	case text == "" && file == "":
		e.mistake(name, "is not set: set it or "+name+"_FILE, or use a configuration file")
	case text != "" && file != "":
		e.mistake(name, "is set, and "+name+"_FILE too: set only one of them")
	case text != "":
		credential, problem := literal(text, name+"_FILE")
		if problem != "" {
			e.mistake(name, problem)
		}
		return login.Credential{Value: credential}
	}
	return login.Credential{File: file}
}
