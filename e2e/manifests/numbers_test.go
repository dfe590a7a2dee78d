package manifests_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// kubernetesPage is docs/kubernetes.md, which a reader begins with, and the pages that it leads to.
func kubernetesPage(t *testing.T) string {
	t.Helper()
	more, err := filepath.Glob("../../docs/kubernetes-*.md")
	if err != nil || len(more) == 0 {
		t.Fatalf("%d more pages, %v", len(more), err)
	}
	all := ""
	for _, page := range append([]string{"../../docs/kubernetes.md"}, more...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	return all
}

func TestTheKubernetesPageSizesAsTheManifestsDo(t *testing.T) {
	t.Parallel()
	resources := sidecar(&only[*appsv1.Deployment](t,
		mustDecode(t, example(t, "worker/overlay"))).Spec.Template.Spec).Resources
	var said []string
	for _, found := range regexp.MustCompile(
		`\*\*((?:request|limit): \w+)\*\*`).FindAllStringSubmatch(kubernetesPage(t), -1) {
		said = append(said, found[1])
	}
	memory, limit, cpu := resources.Requests[corev1.ResourceMemory],
		resources.Limits[corev1.ResourceMemory], resources.Requests[corev1.ResourceCPU]
	want := []string{"request: " + memory.String(), "limit: " + limit.String(),
		"request: " + cpu.String()}
	if !slices.Equal(said, want) {
		t.Errorf("the page says %q, the manifests %q", said, want)
	}
}

// Callers who wait while Vault hangs take memory too, and nothing may be killed for it.
func TestAPodWithTooLittleMemoryForItsConfigurationIsNoticed(t *testing.T) {
	t.Parallel()
	objects := mustDecode(t, example(t, "worker/overlay"))
	pod := &workload(t, objects).Spec
	for name, test := range map[string]struct {
		change func(*config.Config)
		fits   bool
	}{
		"as it is shipped":               {func(*config.Config) {}, true},
		"the default of max_waiting":     {func(c *config.Config) { c.Connections[0].Policy.MaxWaiting = 10_000 }, false},
		"many connections":               {func(c *config.Config) { c.Connections = slices.Repeat(c.Connections, 4) }, false},
		"a cache that is twice as large": {func(c *config.Config) { c.CacheBytes *= 2 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := load(t, only[*corev1.ConfigMap](t, objects).Data["config.yaml"])
			test.change(settings)
			if complaint := tooLittleMemory(settings, pod); (complaint == "") != test.fits {
				t.Errorf("complaint %q", complaint)
			}
		})
	}
}

func TestTheKubernetesPageHasTheArithmeticOfTheLimit(t *testing.T) {
	t.Parallel()
	if formula := "125 MB + 1.7 × `max_bytes` + 25 kB × `max_waiting`"; !strings.Contains(section(t,
		kubernetesPage(t), "Sizing"), formula) {
		t.Errorf("the page does not say %q", formula)
	}
}

// tooLittleMemory checks the limit by the formula of docs/kubernetes-pod.md#sizing.
func tooLittleMemory(settings *config.Config, pod *corev1.PodSpec) string {
	least := 125_000_000 + settings.CacheBytes*17/10
	for _, connection := range settings.Connections {
		least += int64(connection.Policy.MaxWaiting) * 25_000
	}
	if limit := sidecar(pod).Resources.Limits[corev1.ResourceMemory]; limit.Value() < least {
		return fmt.Sprintf("the sidecar may use %s of memory, and its configuration takes %d bytes",
			limit.String(), least)
	}
	return ""
}

func TestTheKubernetesPageIncludesEveryTemplateOfTheChart(t *testing.T) {
	t.Parallel()
	defined := named(t, `define "(secret-sidecar\.\w+)"`, templates(t))
	// that the chart's own templates use
	own := []string{"secret-sidecar.configMapName", "secret-sidecar.image",
		"secret-sidecar.requireValues"}
	defined = slices.DeleteFunc(defined, func(name string) bool {
		return slices.Contains(own, name)
	})
	said := named(t, `include "(secret-sidecar\.\w+)"`, kubernetesPage(t))
	if !slices.Equal(said, defined) {
		t.Errorf("the page includes %q, the chart defines %q", said, defined)
	}
}

// named returns what a pattern finds, sorted, each once.
func named(t *testing.T, pattern, text string) []string {
	t.Helper()
	var found []string
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// templates is the text of the library chart's templates.
func templates(t *testing.T) string {
	t.Helper()
	all := ""
	directory := deploy + "/helm/secret-sidecar/templates"
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := os.ReadFile(directory + "/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	return all
}
