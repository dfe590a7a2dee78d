package image_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/secret-sidecar/secret-sidecar/e2e/containertest"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// page is what docs/image.md says about running the image.
type page struct {
	config  string // config.yaml
	install string // the commands that put the files into their directory
	volume  string // the options of the socket's volume
	// sidecar and worker are the two commands `docker run`.
	sidecar, worker []string
}

// document is the text of docs/image.md.
func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/image.md")
	must(t, err)
	return string(text)
}

func readPage(t *testing.T) page {
	t.Helper()
	_, section, _ := strings.Cut(document(t), "## Run it with Docker or Podman\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)```(yaml|sh elsewhere)\n(.*?)```").FindAllStringSubmatch(
		section, -1)
	options := regexp.MustCompile(`--opt o=(\S+)`).FindStringSubmatch(section)
	if len(blocks) != 3 || len(options) != 2 {
		t.Fatalf("the document has no configuration, no commands or no volume:\n%s", section)
	}
	p := page{config: blocks[0][2], install: blocks[1][2], volume: options[1]}
	for line := range strings.Lines(strings.ReplaceAll(blocks[2][2], "\\\n", " ")) {
		words := strings.Fields(line)
		switch {
		case !strings.HasPrefix(line, "docker run "):
		case p.sidecar == nil:
			p.sidecar = words[2:]
		default:
			p.worker = words[2:]
		}
	}
	if p.worker == nil {
		t.Fatalf("the document does not run two containers:\n%s", section)
	}
	return p
}

// configure makes the directory of the configuration with the document's text and commands, and
// returns it. Only Vault's address and the role are the test's own.
func (p page) configure(t *testing.T, v *vaulttest.Vault) string {
	t.Helper()
	roleID, secretID := v.AppRole(t, "image", nil, `path "flows/*" { capabilities = ["read"] }`)
	config := regexp.MustCompile(`address: .*`).ReplaceAllString(p.config, "address: "+v.Address)
	config = regexp.MustCompile(`role_id: .*`).ReplaceAllString(config, "role_id: "+roleID)
	here, there := t.TempDir(), filepath.Join(t.TempDir(), "etc")
	for name, text := range map[string]string{"config.yaml": config, "secret_id": secretID} {
		must(t, os.WriteFile(filepath.Join(here, name), []byte(text), 0o600))
	}
	bash := exec.CommandContext(t.Context(), "bash", "-euc", strings.ReplaceAll(p.install, "/etc/secret-sidecar", there)) // #nosec G204 -- the project's own page
	bash.Dir = here
	if out, err := bash.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, p.install, out)
	}
	return there
}

// inMemory makes the volume of the socket, with the document's options.
func (p page) inMemory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
		p.volume))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// host is where the document's containers run: the image's file system, and the directories behind
// the names of volumes.
type host struct {
	root        string
	directories map[string]string
}

// container is what a `docker run` of the document asks for. Capabilities, new privileges and the
// root's being read-only are not here: containertest grants no container any of them. Another flag
// fails the test, which would not obey it.
func (h host) container(t *testing.T, command []string) containertest.Spec {
	t.Helper()
	docker := cobra.Command{}
	flags := docker.Flags()
	flags.SetInterspersed(false) // what follows the image is the program's
	for _, name := range []string{"detach", "rm", "read-only"} {
		flags.Bool(name, false, "")
	}
	for _, name := range []string{"name", "restart", "cap-drop", "security-opt"} {
		flags.String(name, "", "")
	}
	user := flags.String("user", fmt.Sprintf("%d:%[1]d", sidecarUser), "")
	cpus, memory := flags.Float64("cpus", 0, ""), flags.String("memory", "0m", "")
	groups, volumes := flags.UintSlice("group-add", nil, ""), flags.StringArray("volume", nil, "")
	must(t, flags.Parse(command))

	spec := containertest.Spec{Root: h.root, CPUs: *cpus,
		Args: append([]string{"/secret-sidecar"}, flags.Args()[1:]...)}
	if flags.NArg() == 1 { // no more than the image's name
		spec.Args = append(spec.Args, "serve") // what it runs by itself
	}
	_, err := fmt.Sscanf(*user, "%d:%d", &spec.UID, &spec.GID)
	must(t, err)
	_, err = fmt.Sscanf(*memory, "%dm", &spec.Memory)
	must(t, err)
	spec.Memory <<= 20
	for _, group := range *groups {
		spec.Groups = append(spec.Groups, uint32(group)) // #nosec G115 -- the project's own page
	}
	for _, volume := range *volumes {
		spec.Volumes = append(spec.Volumes, h.volume(t, volume))
	}
	return spec
}

// volume reads SOURCE:TARGET:OPTIONS.
func (h host) volume(t *testing.T, text string) containertest.Volume {
	t.Helper()
	parts := strings.Split(text+":", ":")
	source, ok := h.directories[parts[0]]
	if !ok {
		t.Fatalf("%s is no volume of the document's", parts[0])
	}
	return containertest.Volume{Source: source, Target: parts[1],
		Writable: !slices.Contains(strings.Split(parts[2], ","), "ro")}
}

func TestTheDocumentConfinesTheSidecarAndGivesItAPodsMemory(t *testing.T) {
	command := strings.Join(readPage(t).sidecar, " ") + " "
	for _, flag := range []string{"--read-only ", "--cap-drop ALL ",
		"--security-opt no-new-privileges "} {
		if !strings.Contains(command, flag) {
			t.Errorf("it runs without %s: %s", flag, command)
		}
	}
	manifest, err := os.ReadFile("../../deploy/kubernetes/component-with-own-fs-group/pod.yaml")
	must(t, err)
	limit := regexp.MustCompile(`memory: (\d+)Mi # 130 MB`).FindSubmatch(manifest)
	if len(limit) != 2 || !strings.Contains(command, "--memory "+string(limit[1])+"m ") {
		t.Errorf("a pod's limit is %q, not this one's: %s", limit, command)
	}
}
