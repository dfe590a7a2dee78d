package manifests_test

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The component adds to a pod and takes nothing away, whatever is there already.
func TestTheComponentTurnsAnyPodIntoOneWithTheSidecar(t *testing.T) {
	t.Parallel()
	const mine = "{name: app, image: app, env: [{name: MINE, value: mine}], volumeMounts: [{name: mine, mountPath: /mine}]}"
	for shape, spec := range map[string]string{
		"nothing but a container":     "{containers: [{name: app, image: app}]}",
		"variables and mounts":        "{containers: [" + mine + "], volumes: [{name: mine, emptyDir: {}}]}",
		"several containers":          "{containers: [" + mine + ", {name: proxy, image: proxy}], volumes: [{name: mine, emptyDir: {}}]}",
		"init containers of its own":  "{initContainers: [{name: migrate, image: app}], containers: [{name: app, image: app}]}",
		"a security context":          "{securityContext: {runAsUser: 1000, supplementalGroups: [7]}, containers: [{name: app, image: app}]}",
		"another native sidecar":      "{initContainers: [{name: logs, image: logs, restartPolicy: Always}], containers: [{name: app, image: app}]}",
		"its own time to end":         "{terminationGracePeriodSeconds: 600, containers: [{name: app, image: app}]}",
		"a service account and token": "{serviceAccountName: app, automountServiceAccountToken: true, containers: [{name: app, image: app}]}",
	} {
		for kind, manifest := range map[string]string{
			"Deployment":  "{apiVersion: apps/v1, kind: Deployment, metadata: {name: app}, spec: {selector: {matchLabels: {app: app}}, template: {metadata: {labels: {app: app}}, spec: %s}}}",
			"StatefulSet": "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: app}, spec: {serviceName: app, selector: {matchLabels: {app: app}}, template: {metadata: {labels: {app: app}}, spec: %s}}}",
		} {
			t.Run(kind+" with "+shape, func(t *testing.T) {
				t.Parallel()
				files := map[string]string{
					"before/kustomization.yaml": "resources: [app.yaml]\n",
					"before/app.yaml":           fmt.Sprintf(manifest, spec),
					"after/kustomization.yaml":  "resources: [../before]\ncomponents: [../../kubernetes/component]\nimages: [{name: secret-sidecar, newTag: v1.0.0}]\n",
				}
				folder := overlay(t, files)
				before := mustDecode(t, kustomize(t, folder+"/before"))
				after := mustDecode(t, kustomize(t, folder+"/after"))
				for _, complaint := range append(breaches(&workload(t, after).Spec), invalid(after[0])...) {
					t.Error(complaint)
				}
				requireSame(t, workload(t, before), withoutSidecar(workload(t, after)))
			})
		}
	}
}

// withoutSidecar takes away what the component adds.
func withoutSidecar(template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	left := template.DeepCopy()
	ours := map[string]bool{socketVolume: true, configVolume: true, approleVolume: true}
	left.Spec.Volumes = slices.DeleteFunc(left.Spec.Volumes, func(v corev1.Volume) bool { return ours[v.Name] })
	left.Spec.InitContainers = left.Spec.InitContainers[1:]
	left.Spec.SecurityContext.FSGroup, left.Spec.SecurityContext.FSGroupChangePolicy = nil, nil
	worker := &left.Spec.Containers[0]
	worker.VolumeMounts = slices.DeleteFunc(worker.VolumeMounts, func(m corev1.VolumeMount) bool { return ours[m.Name] })
	worker.Env = slices.DeleteFunc(worker.Env, func(e corev1.EnvVar) bool { return e.Name == socketVariable })
	return left
}

// Two Deployments of one kustomization both get it.
func TestTheComponentTurnsEveryWorkloadOfAKustomization(t *testing.T) {
	t.Parallel()
	objects := mustDecode(t, kustomize(t, overlay(t, map[string]string{
		"kustomization.yaml": "resources: [a.yaml, b.yaml]\ncomponents: [../kubernetes/component]\nimages: [{name: secret-sidecar, newTag: v1.0.0}]\n",
		"a.yaml":             "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}}}",
		"b.yaml":             "{apiVersion: apps/v1, kind: Deployment, metadata: {name: b}, spec: {selector: {matchLabels: {app: b}}, template: {metadata: {labels: {app: b}}, spec: {containers: [{name: b, image: b}]}}}}",
	})))
	if len(objects) != 2 {
		t.Fatalf("%d objects, not 2: what is local-config must not reach the cluster", len(objects))
	}
	for _, object := range objects {
		for _, complaint := range breaches(&podTemplate(object).Spec) {
			t.Error(complaint)
		}
	}
}
