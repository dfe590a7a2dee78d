package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// oddConnection is a connection that is given to each command in the command's own way.
type oddConnection struct {
	directory, address, roleID, secretIDFile string
}

func (d oddConnection) file(t *testing.T) string {
	t.Helper()
	text := fmt.Sprintf(
		"connections: [{name: c, scope: platform, address: %q, role_id: %q, secret_id_file: %q}]\n",
		d.address, d.roleID, d.secretIDFile)
	return d.written(t, "config.yaml", text)
}

func (d oddConnection) written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(d.directory, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (d oddConnection) flags() []string {
	return []string{"--address", d.address, "--role-id", d.roleID, "--secret-id-file",
		d.secretIDFile}
}

// commands are those that take a connection, by the words that begin them.
func (d oddConnection) commands(t *testing.T) map[string][]string {
	file := d.file(t)
	added := filepath.Join(d.directory, "added.yaml")
	return map[string][]string{
		"config check":            {"config", "check", "--config", file},
		"connections test --file": {"connections", "test", "--file", file},
		"connections test":        append([]string{"connections", "test"}, d.flags()...),
		"connections add":         append([]string{"connections", "add", "c", "--config", added}, d.flags()...),
	}
}

// ran returns the exit code and all that the command has printed.
func ran(ctx context.Context, args []string, getenv lookup) (int, string) {
	var out bytes.Buffer
	code := run(ctx, args, streams{out: &out, err: &out}, getenv)
	return code, out.String()
}

func TestEveryCommandTakesTheSameAddresses(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop() // nothing is asked over the network
	for name, address := range map[string]string{
		"plain":                 "http://vault.example",
		"a port":                "https://vault.example:8200",
		"a slash at the end":    "https://vault.example:8200/",
		"two slashes":           "https://vault.example//",
		"upper case":            "HTTPS://VAULT.EXAMPLE",
		"IPv6":                  "http://[::1]:8200",
		"IPv6 with a zone":      "http://[fe80::1%25eth0]:8200",
		"IPv6 without brackets": "http://::1:8200",
		"a name of letters":     "http://vault",
		"a name of any script":  "http://tresor.zürich",
		"a path":                "https://vault.example/vault",
		"the API's path":        "https://vault.example/v1",
		"a user":                "https://u@vault.example",
		"a password":            "https://u:p@vault.example",
		"a query":               "https://vault.example?x=y",
		"an empty query":        "https://vault.example?",
		"a fragment":            "https://vault.example#x",
		"a space before":        " https://vault.example",
		"a space after":         "https://vault.example ",
		"a space inside":        "https://vault example",
		"a line end":            "https://vault.example\n",
		"a tab":                 "https://vault.example\t",
		"a NUL":                 "https://vault.example\x00",
		"no scheme":             "vault.example",
		"no scheme, a port":     "vault.example:8200",
		"no scheme, an address": "10.0.0.1:8200",
		"no host":               "https://",
		"no host, a port":       "https://:8200",
		"another scheme":        "ftp://vault.example",
		"a socket":              "unix:///run/vault.sock",
		"port 0":                "https://vault.example:0",
		"port 65536":            "https://vault.example:65536",
		"a colon, no port":      "https://vault.example:",
		"a port of letters":     "https://vault.example:https",
		"a variable":            "${VAULT_ADDR}",
		"a variable as host":    "https://${VAULT_HOST}",
		"a broken escape":       "https://vault.example%zz",
		"only a slash":          "/",
		"a blank":               " ",
	} {
		t.Run(name, func(t *testing.T) {
			d := oddConnection{directory: shortDirectory(t), address: address, roleID: "r"}
			d.secretIDFile = d.written(t, "secret_id", "s")
			commands := d.commands(t)
			commands["serve"] = []string{"serve", "--config", d.file(t)}
			problem := vault.AddressProblem(address)
			for command, args := range commands {
				code, said := ran(stopped, args,
					only(socketEnv, filepath.Join(d.directory, "s.sock")))
				if refused := code == exitUsage; refused != (problem != "") ||
					!strings.Contains(said, problem) {
					t.Errorf("%s: exit code %d, want the verdict %q\n%s", command, code, problem,
						said)
				}
			}
		})
	}
}

func TestEveryCommandTakesTheSameCredentialFiles(t *testing.T) {
	dev := devvault.New(devvault.Options{})
	web := httptest.NewServer(dev)
	t.Cleanup(web.Close)
	roleID, secretID, err := dev.SetupAppRole("test",
		`path "secret/data/*" { capabilities = ["read"] }`)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"as it is":           secretID,
		"a line end":         secretID + "\n",
		"a line end of DOS":  secretID + "\r\n",
		"blanks around":      "\n \t" + secretID + "  \n\n",
		"a byte order mark":  "\ufeff" + secretID,
		"60 KiB of blanks":   secretID + strings.Repeat(" ", 60<<10),
		"two lines":          secretID + "\n" + secretID,
		"two lines of DOS":   secretID + "\r\n" + secretID,
		"UTF-16":             utf16(secretID),
		"UTF-16 with a mark": "\xff\xfe" + utf16(secretID),
		"not UTF-8":          secretID + "\xff",
		"a NUL":              secretID + "\x00",
		"a control char":     secretID + "\x07x",
		"100 KiB":            strings.Repeat("x", 100<<10),
		"100 KiB of blanks":  secretID + strings.Repeat(" ", 100<<10),
		"more than 4 KiB":    strings.Repeat("x", 4097),
		"empty":              "",
		"only blanks":        " \n",
		"only a mark":        "\ufeff",
		"a directory":        aDirectory,
		"missing":            isMissing,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := oddConnection{directory: shortDirectory(t), address: web.URL, roleID: roleID}
			d.secretIDFile = d.fileWith(t, content)
			_, fault := login.Credential{File: d.secretIDFile}.Read("secret_id")
			for command, args := range d.commands(t) {
				code, said := ran(t.Context(), args, nothingSet)
				wantVerdict(t, command, code == exitDone, said, fault)
			}
			good, said := d.served(t)
			wantVerdict(t, "serve", good, said, fault)
		})
	}
}

const aDirectory, isMissing = "a directory", "missing"

func utf16(text string) string {
	var wide strings.Builder
	for _, char := range []byte(text) {
		wide.Write([]byte{char, 0})
	}
	return wide.String()
}

func nothingSet(string) (string, bool) { return "", false }

func (d oddConnection) fileWith(t *testing.T, content string) string {
	t.Helper()
	switch content {
	case aDirectory:
		return d.directory
	case isMissing:
		return filepath.Join(d.directory, "missing")
	}
	return d.written(t, "secret_id", content)
}

// served returns whether the running sidecar logs in, and what its list of connections says when it
// does not.
func (d oddConnection) served(t *testing.T) (good bool, said string) {
	t.Helper()
	getenv := only(socketEnv, filepath.Join(d.directory, "s.sock"))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--config", d.file(t)},
			streams{out: io.Discard, err: io.Discard}, getenv)
	}()
	defer func() { stop(); <-ended }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, said = ran(t.Context(), []string{"connections", "list", "--output", "json"}, getenv)
		switch {
		case strings.Contains(said, "CONNECTION_STATE_READY"):
			return true, said
		case strings.Contains(said, "last_error"), strings.Contains(said, "lastError"):
			return false, said
		}
		select {
		case <-tick.C:
		case code := <-ended:
			t.Fatalf("serve ended with %d", code)
		case <-t.Context().Done():
			t.Fatalf("no state in time: %s", said)
		}
	}
}

// wantVerdict wants what the one reader of credentials says: nil is a good one.
func wantVerdict(t *testing.T, command string, good bool, said string, fault error) {
	t.Helper()
	if good != (fault == nil) {
		t.Errorf("%s: taken is %v, want the verdict %v\n%s", command, good, fault, said)
	}
	wrong, ok := errors.AsType[*login.CredentialError](fault)
	if ok && !strings.Contains(said, wrong.Problem) {
		t.Errorf("%s: does not say %q\n%s", command, wrong.Problem, said)
	}
}
