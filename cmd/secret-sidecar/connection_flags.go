package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// connectionFlags describe a connection on the command line. There is none for the secret_id
// itself, because every user of the machine can read command lines.
type connectionFlags struct {
	vault        conn.Settings
	roleID       string
	bindSecretID bool
}

func addConnectionFlags(cmd *cobra.Command) *connectionFlags {
	f := &connectionFlags{}
	flags := cmd.Flags()
	flags.StringVar(&f.vault.Address, "address", "",
		"Vault's address, for example https://vault.example:8200")
	flags.StringVar(&f.vault.Namespace, "namespace", "", "Vault namespace")
	flags.StringVar(&f.vault.AuthMount, "auth-mount", "",
		`mount of the AppRole auth method (default "approle")`)
	flags.StringVar(&f.roleID, "role-id", "", "AppRole role_id")
	flags.StringVar(&f.vault.SecretID.File, "secret-id-file", "", "file that holds the secret_id")
	flags.BoolVar(&f.bindSecretID, "bind-secret-id", true, "false for a role that has no secret_id")
	flags.StringVar(&f.vault.TLS.CAFile, "ca-file", "",
		"CA certificates (PEM) to trust instead of the system's")
	flags.StringVar(&f.vault.TLS.ServerName, "server-name", "",
		"name to expect in Vault's certificate")
	flags.StringVar(&f.vault.TLS.ClientCertFile, "client-cert-file", "", "client certificate (PEM)")
	flags.StringVar(&f.vault.TLS.ClientKeyFile, "client-key-file", "",
		"key of the client certificate (PEM)")
	return f
}

// connection returns what the flags describe, checked by the same rules as a connection of the
// configuration file.
func (f *connectionFlags) connection(name string, scope server.Scope,
	projects []string) (server.Connection, error) {
	if err := f.check(); err != nil {
		return server.Connection{}, err
	}
	f.vault.RoleID = login.Credential{Value: redact.New(f.roleID)}
	if _, err := f.vault.RoleID.Read("--role-id"); errors.Is(err, login.ErrPath) {
		return server.Connection{},
			usagef(`--role-id holds a path: give the role_id itself, --role-id "$(cat FILE)"`)
	} else if err != nil {
		return server.Connection{}, usageError{err}
	}
	connection, err := config.CheckConnection(server.Connection{Name: name, Scope: scope,
		ProjectIDs: projects, Vault: f.vault})
	if err != nil {
		return server.Connection{}, usageError{err}
	}
	return connection, nil
}

// check finds flags that are missing or contradict each other.
func (f *connectionFlags) check() error {
	switch {
	case f.vault.Address == "":
		return usagef("--address is missing: give Vault's address, for example " +
			"https://vault.example:8200")
	case f.roleID == "":
		return usagef("--role-id is missing: give the role_id of the AppRole")
	case f.bindSecretID && f.vault.SecretID.File == "":
		return usagef("--secret-id-file is missing: name the file that holds the secret_id; " +
			"or give --bind-secret-id=false when the role has none")
	case !f.bindSecretID && f.vault.SecretID.File != "":
		return usagef("--bind-secret-id=false says that the role has no secret_id: remove it, or " +
			"--secret-id-file")
	}
	return nil
}
