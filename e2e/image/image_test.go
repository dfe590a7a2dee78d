// Package image_test looks at the container image that the Dockerfile makes, and runs it. `make
// test-image` builds what it looks at, in the directory that SECRET_SIDECAR_IMAGE names: the image
// twice, as OCI layouts, in first and second, and in built/ARCH what `make sbom` makes of the same
// sources, program and SBOM. VERSION, REVISION and SOURCE_DATE_EPOCH say what was built. COSIGN is
// the program that signs; without it nothing is signed.
package image_test

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// sidecarUser is the image's user and group.
const sidecarUser = 65532

// machines are the processors that the image is for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// directory returns what `make test-image` has built, and skips the test where it has not.
func directory(t *testing.T) string {
	t.Helper()
	built := os.Getenv("SECRET_SIDECAR_IMAGE")
	if built == "" {
		t.Skip("runs in `make test-image`, which builds the image first")
	}
	return built
}

// openIndex opens the one index of an OCI layout.
func openIndex(t *testing.T, path string) v1.ImageIndex {
	t.Helper()
	outer, err := layout.ImageIndexFromPath(path)
	must(t, err)
	manifest, err := outer.IndexManifest()
	must(t, err)
	if len(manifest.Manifests) != 1 {
		t.Fatalf("%s has %d entries, want one index", path, len(manifest.Manifests))
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	must(t, err)
	return index
}

// openImage opens the image for a processor.
func openImage(t *testing.T, path, arch string) v1.Image {
	t.Helper()
	images, err := partial.FindImages(openIndex(t, path), func(d v1.Descriptor) bool {
		return d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == arch
	})
	must(t, err)
	if len(images) != 1 {
		t.Fatalf("%s has %d images for linux/%s", path, len(images), arch)
	}
	return images[0]
}

// unpack unpacks an image's file system, with its owners and modes.
func unpack(t *testing.T, image v1.Image) string {
	t.Helper()
	root := t.TempDir()
	must(t, os.Chmod(root, 0o755)) // #nosec G302 -- its user has to get into it
	content := mutate.Extract(image)
	defer func() { _ = content.Close() }()
	tar := exec.CommandContext(t.Context(), "tar", "-x", "--same-owner", "--same-permissions",
		"--numeric-owner", "-C", root)
	tar.Stdin = content
	if out, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v\n%s", err, out)
	}
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheImageIsForBothProcessors(t *testing.T) {
	index := openIndex(t, filepath.Join(directory(t), "first"))
	must(t, validate.Index(index)) // every digest, every size
	manifest, err := index.IndexManifest()
	must(t, err)
	var platforms []string
	for _, one := range manifest.Manifests {
		platforms = append(platforms, one.Platform.String())
	}
	if !slices.Equal(platforms, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("the image is for %v", platforms)
	}
}

func TestTheImageSaysWhatItIs(t *testing.T) {
	first := filepath.Join(directory(t), "first")
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	must(t, err)
	committed := time.Unix(seconds, 0).UTC()
	for arch := range machines {
		t.Run(arch, func(t *testing.T) {
			file, err := openImage(t, first, arch).ConfigFile()
			must(t, err)
			config := file.Config
			if config.User != "65532:65532" ||
				!slices.Equal(config.Entrypoint, []string{"/secret-sidecar"}) ||
				!slices.Equal(config.Cmd, []string{"serve"}) {
				t.Errorf("it runs %q %q as %q", config.Entrypoint, config.Cmd, config.User)
			}
			if len(config.ExposedPorts) != 0 || len(config.Volumes) != 0 {
				t.Errorf("it has ports %v and volumes %v", config.ExposedPorts, config.Volumes)
			}
			if file.Architecture != arch || file.OS != "linux" || !file.Created.Equal(committed) {
				t.Errorf("it is for %s/%s, of %v, want %v", file.OS, file.Architecture,
					file.Created, committed)
			}
			want := map[string]string{"version": os.Getenv("VERSION"),
				"revision": os.Getenv("REVISION"), "created": committed.Format(time.RFC3339),
				"title": "secret-sidecar", "licenses": "Apache-2.0", "source": "https://github.com/secret-sidecar/secret-sidecar"}
			for name, value := range want {
				if got := config.Labels["org.opencontainers.image."+name]; got != value ||
					value == "" {
					t.Errorf("label %s is %q, want %q", name, got, value)
				}
			}
			if config.Labels["org.opencontainers.image.description"] == "" ||
				len(config.Labels) != len(want)+1 {
				t.Errorf("the labels are %v", config.Labels)
			}
			text, err := json.Marshal(file)
			must(t, err)
			if bytes.Contains(text, []byte("GOPROXY=")) ||
				bytes.Contains(text, []byte("file:///modules")) {
				t.Errorf("it tells where its modules came from: %s", text)
			}
		})
	}
}

// entry is a file of the image as its layers have it.
type entry struct {
	mode     fs.FileMode
	uid, gid uint32
}

func TestTheImageHoldsTheProgramItsCertificatesAndTheSocketsDirectory(t *testing.T) {
	first := filepath.Join(directory(t), "first")
	if os.Geteuid() != 0 {
		t.Fatal("only root can unpack files with their owners")
	}
	want := map[string]entry{
		"etc":                               {fs.ModeDir | 0o755, 0, 0},
		"etc/ssl":                           {fs.ModeDir | 0o755, 0, 0},
		"etc/ssl/certs":                     {fs.ModeDir | 0o755, 0, 0},
		"etc/ssl/certs/ca-certificates.crt": {0o644, 0, 0},
		"run":                               {fs.ModeDir | 0o755, 0, 0},
		"run/secret-sidecar":                {fs.ModeDir | 0o700, sidecarUser, sidecarUser},
		"secret-sidecar":                    {0o755, 0, 0},
		"usr":                               {fs.ModeDir | 0o755, 0, 0},
		"usr/share":                         {fs.ModeDir | 0o755, 0, 0},
		"usr/share/doc":                     {fs.ModeDir | 0o755, 0, 0},
		"usr/share/doc/secret-sidecar":      {fs.ModeDir | 0o755, 0, 0},

		"usr/share/doc/secret-sidecar/LICENSE":              {0o644, 0, 0},
		"usr/share/doc/secret-sidecar/THIRD_PARTY_LICENSES": {0o644, 0, 0},
	}
	for arch, machine := range machines {
		t.Run(arch, func(t *testing.T) {
			root := unpack(t, openImage(t, first, arch))
			found, size := list(t, root)
			for path, entry := range found {
				if want[path] != entry {
					t.Errorf("it holds /%s as %+v, want %+v", path, entry, want[path])
				}
			}
			if len(found) != len(want) {
				t.Errorf("it holds %d files and directories, want %d", len(found), len(want))
			}
			const most = 40_000_000
			t.Logf("%.1f MB", float64(size)/1e6)
			if size >= most {
				t.Errorf("it has %d bytes, %d at most are wanted", size, most)
			}
			requireStatic(t, filepath.Join(root, "secret-sidecar"), machine)
			certificates, err := os.ReadFile(filepath.Join(root, "etc", "ssl", "certs",
				"ca-certificates.crt"))
			must(t, err)
			if !x509.NewCertPool().AppendCertsFromPEM(certificates) {
				t.Error("it has no certificate authority")
			}
		})
	}
}

// list returns the files and directories below a root, and the bytes that they take.
func list(t *testing.T, root string) (found map[string]entry, size int64) {
	t.Helper()
	found = map[string]entry{}
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			t.Fatalf("%s has no owner", path)
		}
		found[strings.TrimPrefix(path, root+"/")] = entry{info.Mode(), owner.Uid, owner.Gid}
		if info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	}))
	return found, size
}

// requireStatic checks that a program is for a processor, and needs no other file to run.
func requireStatic(t *testing.T, path string, machine elf.Machine) {
	t.Helper()
	program, err := elf.Open(path)
	must(t, err)
	defer func() { _ = program.Close() }()
	if program.Machine != machine {
		t.Errorf("the program is for %v, want %v", program.Machine, machine)
	}
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			t.Errorf("the program is not static: it has a %v", part.Type)
		}
	}
}

// The second image is built from the caches of the first; what shows that the program itself can be
// reproduced is the one that make builds, in another directory, with caches of its own.
func TestTwoBuildsOfOneCommitAreTheSame(t *testing.T) {
	built := directory(t)
	digest := func(name string) string {
		hash, err := openIndex(t, filepath.Join(built, name)).Digest()
		must(t, err)
		return hash.String()
	}
	if first, second := digest("first"), digest("second"); first != second {
		t.Errorf("one build is %s, another %s", first, second)
	}
	for arch := range machines {
		t.Run(arch, func(t *testing.T) {
			root := unpack(t, openImage(t, filepath.Join(built, "first"), arch))
			inside, err := os.ReadFile(filepath.Join(root, "secret-sidecar"))
			must(t, err)
			outside, err := os.ReadFile(filepath.Join(built, "built", arch, "secret-sidecar"))
			must(t, err)
			if !bytes.Equal(inside, outside) {
				t.Error("the image's program is not what make builds outside of it")
			}
		})
	}
}
