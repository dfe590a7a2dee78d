package manifests_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
	corev1 "k8s.io/api/core/v1"
)

// The sidecar itself reads the configurations of all rendered ConfigMaps.
func TestEveryConfigMapIsAConfigurationThatFitsItsPod(t *testing.T) {
	t.Parallel()
	for name, text := range map[string][]byte{
		"worker, by Kustomize": example(t, "worker/overlay"),
		"jobs, by Kustomize":   example(t, "batch/overlay"),
		"worker, by Helm":      helm(t),
		"node-wide":            example(t, "node-wide/sidecar"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := mustDecode(t, text)
			settings := load(t, only[*corev1.ConfigMap](t, objects).Data["config.yaml"])
			for _, object := range objects {
				if template := podTemplate(object); template != nil {
					requireFits(t, settings, &template.Spec)
				}
			}
		})
	}
}

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := config.Load(file, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return settings
}

// requireFits checks what pod and configuration have to agree upon.
func requireFits(t *testing.T, settings *config.Config, pod *corev1.PodSpec) {
	t.Helper()
	c := sidecar(pod)
	if socket := path.Join(mount(c, socketVolume).MountPath,
		socketFile); settings.Socket.Path != socket {
		t.Errorf("the socket is %s, in the pod it is %s", settings.Socket.Path, socket)
	}
	if settings.Socket.Mode != fs.FileMode(0o660) || settings.Socket.Group != "" {
		t.Errorf("mode %v and group %q: the group is the directory's, and it needs 0660",
			settings.Socket.Mode, settings.Socket.Group)
	}
	for _, connection := range settings.Connections {
		for _, file := range []string{connection.Vault.RoleID.File,
			connection.Vault.SecretID.File} {
			if path.Dir(file) != mount(c, approleVolume).MountPath {
				t.Errorf("connection %s reads %q, the credentials are in %s", connection.Name, file,
					mount(c, approleVolume).MountPath)
			}
		}
	}
	if len(settings.Connections) == 0 {
		t.Error("there is no connection")
	}
	if complaint := tooLittleMemory(settings, pod); complaint != "" {
		t.Error(complaint)
	}
}

func TestANodesSidecarListsWhoMayAsk(t *testing.T) {
	t.Parallel()
	objects := mustDecode(t, example(t, "node-wide/sidecar"))
	settings := load(t, only[*corev1.ConfigMap](t, objects).Data["config.yaml"])
	if len(settings.Callers) == 0 {
		t.Fatal("every pod that reaches the directory may ask for anything")
	}
	own := *sidecar(&workload(t, objects).Spec).SecurityContext.RunAsUser
	seen := false
	for _, rule := range settings.Callers {
		if rule.UID == nil || int64(*rule.UID) != own {
			continue
		}
		seen = true
		if slices.Contains(rule.Methods, "Resolve") ||
			slices.Contains(rule.Methods, "BatchResolve") || len(rule.Methods) == 0 {
			t.Error("whoever may exec into the sidecar's pod may read every secret")
		}
	}
	if !seen {
		t.Error("nobody who looks for a fault in the sidecar's pod may list its connections")
	}
}

// The pods' own commands are commands of the sidecar's, with flags that it has.
func TestEveryCommandOfAPodIsOneOfTheSidecars(t *testing.T) {
	t.Parallel()
	for name, text := range map[string][]byte{"in a pod": example(t, "worker/overlay"),
		"node-wide": example(t, "node-wide/sidecar")} {
		c := sidecar(&workload(t, mustDecode(t, text)).Spec)
		for _, command := range [][]string{c.Args, c.StartupProbe.Exec.Command[1:],
			c.ReadinessProbe.Exec.Command[1:], c.LivenessProbe.Exec.Command[1:]} {
			if err := knows(t, command); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if knows(t, []string{"serve", "--no-such-flag=1"}) == nil {
		t.Error("a flag that the sidecar does not have goes unnoticed")
	}
}
