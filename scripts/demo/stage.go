package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// stage is what the demo plays on: a Vault, and a sidecar that has logged in to it.
type stage struct {
	directory string // private; for the socket and the files
	program   string // secret-sidecar
	socket    string
	vault     vault

	processes []*process
}

// clear ends the processes, the last one first, so that the sidecar can still revoke its token.
func (s *stage) clear() {
	for len(s.processes) > 0 {
		last := len(s.processes) - 1
		s.processes[last].end()
		s.processes = s.processes[:last]
	}
}

var welcomeLine = regexp.MustCompile(`(?s)Vault address +(\S+)\n +Root token +(\S+)\n`)

// startDev runs `secret-sidecar dev`, which brings its own Vault, and reads where that is from what
// it prints.
func (s *stage) startDev(ctx context.Context) error {
	printed := &lockedBuffer{}
	dev, err := startProcess("secret-sidecar dev", printed, s.environment(), s.program,
		"dev", "--socket", s.socket, "--secret", reference+"="+firstValue)
	if err != nil {
		return err
	}
	s.processes = append(s.processes, dev)
	var found []string
	err = dev.waitFor(ctx, "its welcome", func() bool {
		found = welcomeLine.FindStringSubmatch(printed.String())
		return found != nil
	})
	if err != nil {
		return err
	}
	s.vault = vault{address: found[1], token: found[2]}
	fmt.Printf("# secret-sidecar dev runs, on its own development Vault at %s\n", s.vault.address)
	return nil
}

// startReal runs a Vault server, sets it up, and runs `secret-sidecar serve` with a configuration
// file.
func (s *stage) startReal(ctx context.Context) error {
	if err := s.startVault(ctx); err != nil {
		return err
	}
	roleID, secretID, err := s.vault.setUp(ctx)
	if err != nil {
		return fmt.Errorf("set the Vault up: %w", err)
	}
	file, err := s.writeConfig(roleID, secretID)
	if err != nil {
		return err
	}
	sidecar, err := startProcess("secret-sidecar serve", nil, s.environment(), s.program, "serve",
		"--config", file)
	if err != nil {
		return err
	}
	s.processes = append(s.processes, sidecar)
	return sidecar.waitFor(ctx, "its login", func() bool {
		_, _, err := s.command(ctx, "health")
		return err == nil
	})
}

func (s *stage) startVault(ctx context.Context) error {
	program, err := findVault()
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	s.vault = vault{address: "http://" + address, token: rand.Text()}
	env := append(s.environment(), "VAULT_DEV_ROOT_TOKEN_ID="+s.vault.token,
		"VAULT_DEV_LISTEN_ADDRESS="+address)
	server, err := startProcess("vault server", nil, env, program, "server", "-dev",
		"-dev-no-store-token")
	if err != nil {
		return err
	}
	s.processes = append(s.processes, server)
	err = server.waitFor(ctx, "it was unsealed", func() bool {
		_, err := s.vault.do(ctx, http.MethodGet, "secret/config", nil) // fails until KV is mounted
		return err == nil
	})
	if err != nil {
		return err
	}
	version, err := s.vault.serverVersion(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("# vault server -dev runs, version %s, at %s\n", version, s.vault.address)
	return nil
}

// findVault returns the Vault to run: the one that VAULT_BINARY names, the one that `make` built,
// or the one on PATH.
func findVault() (string, error) {
	if named := os.Getenv("VAULT_BINARY"); named != "" {
		return named, nil
	}
	built := filepath.Join(".tools", "bin", "vault")
	if _, err := os.Stat(built); err == nil {
		return filepath.Abs(built)
	}
	installed, err := exec.LookPath("vault")
	if err != nil {
		return "", errors.New("there is no vault: install one, or name it in VAULT_BINARY")
	}
	return installed, nil
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (s *stage) writeConfig(roleID, secretID string) (file string, err error) {
	secretIDFile := filepath.Join(s.directory, "secret_id")
	if err := os.WriteFile(secretIDFile, []byte(secretID+"\n"), 0o600); err != nil {
		return "", err
	}
	file = filepath.Join(s.directory, "config.yaml")
	text := fmt.Sprintf(
		"socket: {path: %q}\nconnections:\n  - name: default\n    scope: platform\n    address: "+
			"%s\n    role_id: %s\n    secret_id_file: %q\n",
		s.socket, s.vault.address, roleID, secretIDFile)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

// environment is all that the processes get of the demo's own.
func (s *stage) environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + s.directory,
		"TMPDIR=" + os.TempDir(),
		"SECRET_SIDECAR_SOCKET=" + s.socket,
	}
}
