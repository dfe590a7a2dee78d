package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const (
	// devRole is the AppRole that the sidecar logs in with.
	devRole = "secret-sidecar"
	// devPolicy is what the role may do: read secrets, and see the mounts in `connections test`.
	devPolicy = `
path "secret/data/*" { capabilities = ["read"] }
path "sys/mounts" { capabilities = ["read"] }`
	// devMount is where the development Vault keeps its secrets.
	devMount = "secret/data/"
)

// devVault is a running development Vault with a role and secrets in it.
type devVault struct {
	handler          *devvault.Vault
	address          string
	roleID, secretID string
	references       []string // to the secrets, as they were given
	first            vault.Reference
	stop             func()
}

// startDevVault starts it on the loopback interface. The caller calls stop.
func startDevVault(flags devFlags) (*devVault, error) {
	v := &devVault{handler: devvault.New(devvault.Options{})}
	if err := v.putSecrets(flags.secrets); err != nil {
		return nil, err
	}
	var err error
	if v.roleID, v.secretID, err = v.handler.SetupAppRole(devRole, devPolicy); err != nil {
		return nil, err
	}
	listener, err := listenLoopback(flags.vaultListen)
	if err != nil {
		return nil, err
	}
	v.address = "http://" + listener.Addr().String()
	v.stop = serveHTTP(listener, v.handler)
	return v, nil
}

// environment returns the variables that configure a connection to this Vault.
func (v *devVault) environment(name string) (string, bool) {
	value, found := map[string]string{
		"VAULT_ADDR":      v.address,
		"VAULT_ROLE_ID":   v.roleID,
		"VAULT_SECRET_ID": v.secretID,
	}[name]
	return value, found
}

// putSecrets writes the REF=VALUE pairs; several keys of one secret make one secret.
func (v *devVault) putSecrets(pairs []string) error {
	secrets := make(map[string]map[string]any)
	for _, pair := range pairs {
		text, value, ok := strings.Cut(pair, "=")
		if !ok {
			return usagef("--secret takes REF=VALUE, for example " +
				"secret/data/mysec/api_key=supersecret")
		}
		reference, err := vault.ParseReference(text, "")
		if err != nil {
			return usageError{fmt.Errorf("--secret: %w", err)}
		}
		name, ok := strings.CutPrefix(reference.Path, devMount)
		if !ok {
			return usagef("--secret: the development Vault keeps its secrets under %s: begin the "+
				"reference with it", devMount)
		}
		if v.references == nil {
			v.first = reference
		}
		v.references = append(v.references, text)
		if secrets[name] == nil {
			secrets[name] = make(map[string]any)
		}
		secrets[name][reference.Key] = value
	}
	for name, data := range secrets {
		if err := v.handler.WriteSecret(name, data); err != nil {
			return err
		}
	}
	return nil
}

// listenLoopback refuses addresses that other machines can reach, because the root token travels in
// the clear.
func listenLoopback(address string) (net.Listener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil || !tcp.IP.IsLoopback() {
		return nil,
			usagef("--vault-listen takes an address of the loopback interface, for example " +
				"127.0.0.1:8200")
	}
	listener, err := net.ListenTCP("tcp", tcp)
	if err != nil {
		return nil, fmt.Errorf("start the development Vault: %w: choose another --vault-listen",
			err)
	}
	return listener, nil
}

// serveHTTP serves the handler on the listener until stop is called, which waits for it.
func serveHTTP(listener net.Listener, handler http.Handler) (stop func()) {
	web := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	var running sync.WaitGroup
	running.Go(func() {
		if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("the development Vault ended", "error", err)
		}
	})
	return func() {
		_ = web.Close() // closes the listener; nobody is left to ask
		running.Wait()
	}
}
