package manifests_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Whoever sets up two workers of one namespace by the page, by the examples or by Helm, gets two of
// everything: the second one must not replace what the first one reads.
func TestTwoWorkersOfANamespaceShareNothing(t *testing.T) {
	t.Parallel()
	second := newReader(t)
	second.writeFiles(t, strings.ReplaceAll(kubernetesPage(t), "worker-", "second-"))
	second.write(t, "base/worker.yaml", strings.ReplaceAll(workerOfTheReader, "worker", "second"))
	chart := filepath.Join(helmCharts(t), "worker")
	for name, texts := range map[string][2][]byte{
		"by the page":     {example(t, "worker/overlay"), kustomize(t, filepath.Join(second.directory, "overlay"))},
		"by the examples": {example(t, "worker/overlay"), example(t, "batch/overlay")},
		"by Helm": {
			run(t, tool(t, "HELM"), "template", "first", chart, "--namespace", "flows"),
			run(t, tool(t, "HELM"), "template", "second", chart, "--namespace", "flows"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := uses(t, mustDecode(t, texts[0]))
			for what := range uses(t, mustDecode(t, texts[1])) {
				if first[what] {
					t.Errorf("both have %s", what)
				}
			}
		})
	}
}

// Two workers of one release have one name between them, so each says which ConfigMap and Secret
// are its own.
func TestTwoSubchartsOfAReleaseShareNothingWhenTheyNameTheirOwn(t *testing.T) {
	t.Parallel()
	directory := helmCharts(t)
	const first, second = "worker: {secret-sidecar: {configMap: a-config, approleSecret: " +
		"a-approle}}\n",
		"other: {secret-sidecar: {configMap: b-config, approleSecret: b-approle}}\n"
	for file, text := range map[string]string{
		"Chart.yaml": "apiVersion: v2\nname: both\nversion: 1.0.0\ndependencies:\n" +
			"  - {name: worker, version: 1.0.0, repository: 'file://../worker'}\n" +
			"  - {name: worker, version: 1.0.0, repository: 'file://../worker', alias: other}\n",
		"values.yaml": first + second,
	} {
		path := filepath.Join(directory, "both", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, tool(t, "HELM"), "dependency", "update", filepath.Join(directory, "both"))
	used := uses(t,
		mustDecode(t, run(t, tool(t, "HELM"), "template", "release",
			filepath.Join(directory, "both"))))
	for _, want := range []string{"ConfigMap a-config", "Secret a-approle", "ConfigMap b-config",
		"Secret b-approle"} {
		if !used[want] {
			t.Errorf("nobody has %s of its own: %v", want, used)
		}
	}
	if said := "give each a `configMap` and an `approleSecret`"; !strings.Contains(
		kubernetesPage(t), said) {
		t.Errorf("the page does not say %q", said)
	}
}

// uses names the objects, and the ConfigMaps and Secrets that their pods mount. Those ConfigMaps
// have to be there.
func uses(t *testing.T, objects []runtime.Object) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, object := range objects {
		found[object.GetObjectKind().GroupVersionKind().Kind+" "+
			object.(metav1.Object).GetName()] = true
	}
	for _, object := range objects {
		template := podTemplate(object)
		if template == nil {
			continue
		}
		if mounted := "ConfigMap " + volume(&template.Spec,
			configVolume).ConfigMap.Name; !found[mounted] {
			t.Errorf("nothing makes %s", mounted)
		}
		found["Secret "+volume(&template.Spec, approleVolume).Secret.SecretName] = true
	}
	return found
}

// TestTheChartTakesItsValues has the names that somebody chose.
func TestAReleaseNamesWhatItsSidecarReads(t *testing.T) {
	t.Parallel()
	objects := mustDecode(t, helm(t))
	pod := &workload(t, objects).Spec
	if got := only[*corev1.ConfigMap](t, objects).Name; got != "worker-secret-sidecar-config" {
		t.Errorf("the ConfigMap is %s", got)
	}
	if got := volume(pod, approleVolume).Secret.SecretName; got != "worker-secret-sidecar-approle" {
		t.Errorf("the Secret is %s", got)
	}
}
