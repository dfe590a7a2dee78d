package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hashicorp/vault/api"
)

// vaultClient returns the client that a worker would use without a sidecar.
func vaultClient(address, token string) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address = address
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.SetToken(token)
	return client, nil
}

// readDirect reads KV v2 with vault/api, as a worker without a sidecar would.
func readDirect(client *api.Client) func(context.Context, int, int) error {
	kv := client.KVv2("secret")
	return func(ctx context.Context, caller, turn int) error {
		_, err := kv.Get(ctx, secretName(usualSize, (caller+turn)%usual))
		return err
	}
}

// startRealVault starts a real Vault with the secrets of the benchmark.
func (s *stage) startRealVault(ctx context.Context, binary string) (vaultReady, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return vaultReady{}, err
	}
	const token = "root"
	command := exec.Command(binary, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id",
		token,
		"-dev-listen-address", address, "-log-level", "error")
	command.Env = []string{"HOME=" + s.directory}
	if _, err := s.keep(startProcess(command)); err != nil {
		return vaultReady{}, err
	}
	v := vaultReady{Address: "http://" + address, RootToken: token}
	client, err := vaultClient(v.Address, token)
	if err != nil {
		return vaultReady{}, err
	}
	if err := eventually(ctx, func() error {
		_, err := client.Sys().MountConfigWithContext(ctx, "secret")
		return err
	}); err != nil {
		return vaultReady{}, err
	}
	v.RoleID, v.SecretID, err = setUpRealVault(ctx, client)
	return v, err
}

func setUpRealVault(ctx context.Context, client *api.Client) (roleID, secretID string, err error) {
	for i := range usual {
		name := secretName(usualSize, i)
		_, number, _ := parseName(name)
		if _, err := client.KVv2("secret").Put(ctx, name,
			map[string]any{"key": valueOf(usualSize, number)}); err != nil {
			return "", "", err
		}
	}
	if err := client.Sys().EnableAuthWithOptionsWithContext(ctx, "approle",
		&api.EnableAuthOptions{Type: "approle"}); err != nil {
		return "", "", err
	}
	if err := client.Sys().PutPolicyWithContext(ctx, "bench", benchPolicy); err != nil {
		return "", "", err
	}
	const role = "auth/approle/role/bench"
	if _, err := client.Logical().WriteWithContext(ctx, role,
		map[string]any{"token_policies": "bench"}); err != nil {
		return "", "", err
	}
	read, err := client.Logical().ReadWithContext(ctx, role+"/role-id")
	if err != nil {
		return "", "", err
	}
	made, err := client.Logical().WriteWithContext(ctx, role+"/secret-id", nil)
	if err != nil {
		return "", "", err
	}
	return fmt.Sprint(read.Data["role_id"]), fmt.Sprint(made.Data["secret_id"]), nil
}

// startProxy starts Vault Proxy with auto-auth in front of a Vault, on a Unix socket as the sidecar
// is.
func (s *stage) startProxy(ctx context.Context, binary string,
	v vaultReady) (*process, *api.Client, error) {
	socket := s.socket()
	directory := filepath.Dir(socket)
	if err := os.Mkdir(directory, 0o700); err != nil {
		return nil, nil, err
	}
	config := fmt.Sprintf(`
vault { address = %q }
auto_auth {
  method "approle" {
    config = { role_id_file_path = %q, secret_id_file_path = %q, remove_secret_id_file_after_reading = false }
  }
}
api_proxy { use_auto_auth_token = true }
listener "unix" {
  address     = %q
  tls_disable = true
}
`, v.Address, filepath.Join(directory, "role_id"), filepath.Join(directory, "secret_id"), socket)
	for name, text := range map[string]string{"role_id": v.RoleID, "secret_id": v.SecretID,
		"proxy.hcl": config} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			return nil, nil, err
		}
	}
	command := exec.Command(binary, "proxy", "-config", filepath.Join(directory, "proxy.hcl"),
		"-log-level", "error")
	command.Env = []string{"HOME=" + directory}
	p, err := s.keep(startProcess(command))
	if err != nil {
		return nil, nil, err
	}
	client, err := vaultClient("unix://"+socket, "")
	if err != nil {
		return nil, nil, err
	}
	return p, client, eventually(ctx, func() error { return readDirect(client)(ctx, 0, 0) })
}

func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String(), nil
}

// eventually repeats an attempt until it works.
func eventually(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}
