package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// newIdentityPod is a pod without a secret_id: its sidecar logs in with a projected token.
func newIdentityPod(t *testing.T) (p *pod, token string) {
	t.Helper()
	p = newPod(t)
	cluster := vaulttest.NewKubernetes(t)
	p.login.vault.Policy(t, "worker", readSecrets)
	p.login.vault.KubernetesRole(t, cluster, "kubernetes", "worker", "worker")
	token = p.keep(cluster.Token(t, "flows", "worker", nil))
	p.secret.swap(map[string]string{"token": token})
	connection := fmt.Sprintf("  - name: prod\n    address: %s\n    timeout: 20s\n"+
		"    auth: {method: kubernetes, role: worker, token_file: /etc/vault/token}\n",
		p.proxy.address)
	p.config.swap(map[string]string{"config.yaml": strings.Replace(p.sandbox.configText(connection),
		p.socket(), podSocket+`, mode: "0660"`, 1)})
	return p, token
}

// credentialText matches what may be a credential: a token of Vault's, a key, or a JWT.
var credentialText = regexp.MustCompile(
	`hv[sb]\.[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY|[\w-]{10,}\.[\w-]{10,}\.[\w-]{40,}`)

func TestInAPodWithItsOwnIdentityNothingButAnHoursTokenIsFound(t *testing.T) {
	t.Parallel()
	p, token := newIdentityPod(t)
	r := p.startSidecar()
	r.awaitStarted()
	eventually(t, "the sidecar has logged in", func() bool { return len(p.proxy.granted()) == 1 })
	process := fmt.Sprintf("/proc/%d/", r.container.PID())
	found := map[string][]string{}
	note := func(where string, text []byte) {
		for _, credential := range credentialText.FindAllString(string(text), -1) {
			found[credential] = append(found[credential], where)
		}
		if strings.Contains(string(text), p.login.secretID) {
			t.Errorf("%s holds a secret_id", where)
		}
	}
	for _, name := range []string{"environ", "cmdline"} {
		text, err := os.ReadFile(process + name) // #nosec G304 -- of the kernel
		p.must(err)
		note(name, text)
	}
	// The system's own folders hold the programs that every container of the tests has.
	for _, directory := range []string{"etc", "run", "tmp", "var", "home", "root"} {
		p.must(noteFiles(filepath.Join(process, "root", directory), note))
	}
	if len(found) != 1 || len(found[token]) == 0 {
		t.Errorf("the pod holds %d credentials, and its token in %q", len(found), found[token])
	}
	r.stop()
}

// noteFiles reads all files below a directory; one that is absent has none.
func noteFiles(directory string, note func(where string, text []byte)) error {
	return filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !entry.Type().IsRegular():
			return nil
		}
		file, err := os.Open(path) // #nosec G304 -- of a container of this test
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // it was only read
		text, err := io.ReadAll(io.LimitReader(file, 4<<20))
		note(path, text)
		return err
	})
}
