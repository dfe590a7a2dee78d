package manifests_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

func kubernetesPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheKubernetesPageSizesAsTheManifestsDo(t *testing.T) {
	t.Parallel()
	resources := sidecar(&only[*appsv1.Deployment](t, mustDecode(t, example(t, "worker/overlay"))).Spec.Template.Spec).Resources
	var said []string
	for _, found := range regexp.MustCompile(`\*\*((?:request|limit): \w+)\*\*`).FindAllStringSubmatch(kubernetesPage(t), -1) {
		said = append(said, found[1])
	}
	memory, limit, cpu := resources.Requests[corev1.ResourceMemory], resources.Limits[corev1.ResourceMemory], resources.Requests[corev1.ResourceCPU]
	want := []string{"request: " + memory.String(), "limit: " + limit.String(), "request: " + cpu.String()}
	if !slices.Equal(said, want) {
		t.Errorf("the page says %q, the manifests %q", said, want)
	}
}

func TestTheKubernetesPageIncludesEveryTemplateOfTheChart(t *testing.T) {
	t.Parallel()
	defined := named(t, `define "(secret-sidecar\.\w+)"`, templates(t))
	own := []string{"secret-sidecar.configMapName", "secret-sidecar.image"} // that the chart's own templates use
	defined = slices.DeleteFunc(defined, func(name string) bool { return slices.Contains(own, name) })
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
	folder := deploy + "/helm/secret-sidecar/templates"
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := os.ReadFile(folder + "/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	return all
}
