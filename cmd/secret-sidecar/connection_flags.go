package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// connectionFlags describe a connection on the command line. There is none for the secret_id itself: every
// user of the machine can read command lines.
type connectionFlags struct {
	address, namespace, authMount string
	roleID, secretIDFile          string
	bindSecretID                  bool
	tls                           config.TLS
}

func addConnectionFlags(cmd *cobra.Command) *connectionFlags {
	f := &connectionFlags{}
	flags := cmd.Flags()
	flags.StringVar(&f.address, "address", "", "Vault's address, for example https://vault.example:8200")
	flags.StringVar(&f.namespace, "namespace", "", "Vault namespace")
	flags.StringVar(&f.authMount, "auth-mount", "", `mount of the AppRole auth method (default "approle")`)
	flags.StringVar(&f.roleID, "role-id", "", "AppRole role_id")
	flags.StringVar(&f.secretIDFile, "secret-id-file", "", "file that holds the secret_id")
	flags.BoolVar(&f.bindSecretID, "bind-secret-id", true, "false for a role that has no secret_id")
	flags.StringVar(&f.tls.CAFile, "ca-file", "", "CA certificates (PEM) to trust instead of the system's")
	flags.StringVar(&f.tls.ServerName, "server-name", "", "name to expect in Vault's certificate")
	flags.StringVar(&f.tls.ClientCertFile, "client-cert-file", "", "client certificate (PEM)")
	flags.StringVar(&f.tls.ClientKeyFile, "client-key-file", "", "key of the client certificate (PEM)")
	return f
}

// connection returns what the flags describe.
func (f *connectionFlags) connection(name string) (config.NewConnection, error) {
	switch {
	case f.address == "":
		return config.NewConnection{}, usagef("--address is missing: give Vault's address, for example https://vault.example:8200")
	case f.roleID == "":
		return config.NewConnection{}, usagef("--role-id is missing: give the role_id of the AppRole")
	case f.bindSecretID && f.secretIDFile == "":
		return config.NewConnection{}, usagef("--secret-id-file is missing: name the file that holds the secret_id; " +
			"or give --bind-secret-id=false when the role has none")
	case !f.bindSecretID && f.secretIDFile != "":
		return config.NewConnection{}, usagef("--bind-secret-id=false says that the role has no secret_id: remove it, or --secret-id-file")
	}
	roleID, err := f.checkedRoleID()
	if err != nil {
		return config.NewConnection{}, err
	}
	return config.NewConnection{
		Name:         name,
		Scope:        config.ScopePlatform,
		Address:      f.address,
		Namespace:    f.namespace,
		AuthMount:    f.authMount,
		RoleID:       roleID,
		SecretIDFile: f.secretIDFile,
		NoSecretID:   !f.bindSecretID,
		TLS:          f.tls,
	}, nil
}

func (f *connectionFlags) checkedRoleID() (redact.String, error) {
	roleID, err := login.Credential{Value: redact.New(f.roleID)}.Read("--role-id")
	switch {
	case errors.Is(err, login.ErrPath):
		return roleID, usagef(`--role-id holds a path: give the role_id itself, --role-id "$(cat FILE)"`)
	case err != nil:
		return roleID, usageError{err}
	}
	return roleID, nil
}
