package image_test

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// signer runs cosign in a directory of its own, without any of Sigstore's services.
type signer struct {
	t         *testing.T
	program   string
	directory string
}

// newSigner skips the test where there is no cosign; `make test-signing` builds it.
func newSigner(t *testing.T) *signer {
	t.Helper()
	directory(t)
	program := os.Getenv("COSIGN")
	if program == "" {
		t.Skip("runs in `make test-signing`, which builds cosign first")
	}
	s := &signer{t: t, program: program, directory: t.TempDir()}
	s.cosign("signing-config", "create", "--out", "no-services.json")
	return s
}

func (s *signer) run(args ...string) (string, error) {
	command := exec.CommandContext(s.t.Context(), s.program, args...)
	command.Dir = s.directory
	command.Env = []string{"HOME=" + s.directory, "COSIGN_PASSWORD=of-the-test",
		"PATH=" + os.Getenv("PATH")}
	out, err := command.CombinedOutput()
	return string(out), err
}

func (s *signer) cosign(args ...string) {
	s.t.Helper()
	if out, err := s.run(args...); err != nil {
		s.t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// push puts the image into a registry on this machine, and returns its name there, by digest.
func push(t *testing.T, path string) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true)))
	t.Cleanup(server.Close)
	repository, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://") +
		"/secret-sidecar")
	must(t, err)
	index := openIndex(t, path)
	digest, err := index.Digest()
	must(t, err)
	reference := repository.Digest(digest.String())
	must(t, remote.WriteIndex(reference, index))
	return reference.String()
}

func TestTheImageIsSignedWithAKeyAndVerified(t *testing.T) {
	s := newSigner(t)
	image := push(t, filepath.Join(directory(t), "first"))
	s.cosign("generate-key-pair", "--output-key-prefix", "ours")
	s.cosign("generate-key-pair", "--output-key-prefix", "theirs")
	verify := func(key string) error {
		_, err := s.run("verify", "--key", key, "--insecure-ignore-tlog", image)
		return err
	}
	if verify("ours.pub") == nil {
		t.Error("an image that nobody has signed is verified")
	}
	s.cosign("sign", "--yes", "--recursive", "--key", "ours.key", "--signing-config",
		"no-services.json", image)
	if err := verify("ours.pub"); err != nil {
		t.Errorf("the signed image is not verified: %v", err)
	}
	if verify("theirs.pub") == nil {
		t.Error("another key verifies it too")
	}
}

func TestTheCommandsOfTheDocumentSignAndVerifyWithAKey(t *testing.T) {
	s := newSigner(t)
	built := directory(t)
	image := push(t, filepath.Join(built, "first"))
	amd64, err := openImage(t, filepath.Join(built, "first"), "amd64").Digest()
	must(t, err)
	bom, err := filepath.Abs(filepath.Join(built, "built", "amd64"))
	must(t, err)
	must(t, os.Symlink(bom, filepath.Join(s.directory, "bin")))
	must(t, os.Symlink(s.program, filepath.Join(s.directory, "cosign")))
	_, section, _ := strings.Cut(document(t), "### With a key\n")
	section, _, _ = strings.Cut(section, "\n#")
	commands := regexp.MustCompile("(?s)```sh elsewhere\n(.*?)```").FindStringSubmatch(section)
	if len(commands) != 2 || strings.Count(commands[1], "cosign ") < 6 {
		t.Fatalf("the document does not sign, attest and verify:\n%s", section)
	}
	bash := exec.CommandContext(t.Context(), "bash", "-euc", commands[1])
	bash.Dir = s.directory
	bash.Env = []string{"HOME=" + s.directory, "COSIGN_PASSWORD=of-the-test",
		"PATH=" + s.directory + ":" + os.Getenv("PATH"),
		"IMAGE=" + image, "AMD64=" + strings.Split(image, "@")[0] + "@" + amd64.String()}
	if out, err := bash.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, commands[1], out)
	}
}

func TestTheProgramIsSignedWithAKeyAndVerified(t *testing.T) {
	s := newSigner(t)
	program, err := filepath.Abs(filepath.Join(directory(t), "built", "amd64", "secret-sidecar"))
	must(t, err)
	s.cosign("generate-key-pair")
	s.cosign("sign-blob", "--yes", "--key", "cosign.key", "--signing-config", "no-services.json",
		"--bundle", "program.sigstore.json", program)
	verify := []string{"verify-blob", "--key", "cosign.pub", "--insecure-ignore-tlog", "--bundle",
		"program.sigstore.json"}
	s.cosign(append(verify, program)...)
	if _, err := s.run(append(verify, program+".cdx.json")...); err == nil {
		t.Error("another file is verified by its signature")
	}
}
