package manifests_test

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"sigs.k8s.io/yaml"
)

// The component and the chart say the same twice. This compares what becomes of them, field by
// field.
func TestTheChartAndTheComponentMakeTheSameDeployment(t *testing.T) {
	t.Parallel()
	byKustomize, byHelm := mustDecode(t, example(t, "worker/overlay")), mustDecode(t, helm(t))
	one, other := only[*appsv1.Deployment](t, byKustomize), only[*appsv1.Deployment](t, byHelm)
	// a patch by name brings volumes to the front; their order means nothing
	for _, each := range []*appsv1.Deployment{one, other} {
		slices.SortFunc(each.Spec.Template.Spec.Volumes, func(a, b corev1.Volume) int {
			return strings.Compare(a.Name, b.Name)
		})
	}
	requireSame(t, one, other)
	first, second := only[*corev1.ConfigMap](t, byKustomize), only[*corev1.ConfigMap](t, byHelm)
	requireSame(t, parsed(t, first.Data["config.yaml"]), parsed(t, second.Data["config.yaml"]))
	first.Data, second.Data = nil, nil
	requireSame(t, first, second)
}

func TestACronJobGetsTheSameAsADeployment(t *testing.T) {
	t.Parallel()
	for _, component := range []string{"component", "node-wide-worker"} {
		t.Run(component, func(t *testing.T) {
			t.Parallel()
			objects := mustDecode(t, kustomize(t, overlay(t, map[string]string{
				"kustomization.yaml": "resources: [job.yaml, cronjob.yaml]\ncomponents: [../kubernetes/" + component + "]\n",
				"job.yaml":           "{apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {template: " + barePod + "}}",
				"cronjob.yaml":       "{apiVersion: batch/v1, kind: CronJob, metadata: {name: c}, spec: {schedule: '@daily', jobTemplate: {spec: {template: " + barePod + "}}}}",
			})))
			requireSame(t, only[*batchv1.Job](t, objects).Spec.Template,
				only[*batchv1.CronJob](t, objects).Spec.JobTemplate.Spec.Template)
		})
	}
}

const barePod = "{spec: {restartPolicy: Never, containers: [{name: w, image: w}]}}"

func TestDriftIsNoticed(t *testing.T) {
	t.Parallel()
	first := only[*appsv1.Deployment](t, mustDecode(t, example(t, "worker/overlay")))
	second := only[*appsv1.Deployment](t,
		mustDecode(t, helm(t, "--set", "secret-sidecar.resources.requests.cpu=30m")))
	if equality.Semantic.DeepEqual(first, second) {
		t.Error("a chart that requests more CPU counts as the same")
	}
}

func requireSame(t *testing.T, first, second any) {
	t.Helper()
	if !equality.Semantic.DeepEqual(first, second) {
		t.Errorf("they differ (- first, + second):\n%s", diff.Diff(first, second))
	}
}

// parsed is a YAML text without its comments and layout.
func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	var values map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &values); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return values
}
