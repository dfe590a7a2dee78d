package manifests_test

import (
	"bytes"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// workloads are the kinds that get the sidecar, each with a place for the pod's specification.
var workloads = map[string]string{
	"Deployment":  "{apiVersion: apps/v1, kind: Deployment, metadata: {name: app}, spec: {selector: {matchLabels: {app: app}}, template: {metadata: {labels: {app: app}}, spec: %s}}}",
	"DaemonSet":   "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: app}, spec: {selector: {matchLabels: {app: app}}, template: {metadata: {labels: {app: app}}, spec: %s}}}",
	"StatefulSet": "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: app}, spec: {serviceName: app, selector: {matchLabels: {app: app}}, template: {metadata: {labels: {app: app}}, spec: %s}}}",
}

// jobs are the kinds whose pods have to say that they do not restart.
var jobs = map[string]string{
	"Job":     "{apiVersion: batch/v1, kind: Job, metadata: {name: app}, spec: {template: {spec: %s}}}",
	"CronJob": "{apiVersion: batch/v1, kind: CronJob, metadata: {name: app}, spec: {schedule: '@daily', jobTemplate: {spec: {template: {spec: %s}}}}}",
}

// turned are the kinds of both.
var turned = func() map[string]string {
	all := maps.Clone(workloads)
	maps.Copy(all, jobs)
	return all
}()

// withPod is a manifest of a kind that is turned, whose pod has these fields.
func withPod(kind, fields string) string {
	restart := "Always"
	if jobs[kind] != "" {
		restart = "Never"
	}
	return fmt.Sprintf(turned[kind], "{restartPolicy: "+restart+", "+fields+"}")
}

// components are what a kustomization may list.
var components = []string{"component", "component-with-own-fs-group", "node-wide-worker",
	"node-wide-worker-with-own-fs-group"}

// The component adds to a pod and takes nothing away, whatever is there already.
func TestTheComponentTurnsAnyPodIntoOneWithTheSidecar(t *testing.T) {
	t.Parallel()
	const mine = "{name: app, image: app, env: [{name: MINE, value: mine}], volumeMounts: " +
		"[{name: mine, mountPath: /mine}]}"
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
		for kind, manifest := range workloads {
			t.Run(kind+" with "+shape, func(t *testing.T) {
				t.Parallel()
				files := map[string]string{
					"before/kustomization.yaml": "resources: [app.yaml]\n",
					"before/app.yaml":           fmt.Sprintf(manifest, spec),
					"after/kustomization.yaml":  "resources: [../before]\ncomponents: [../../kubernetes/component]\nimages: [{name: secret-sidecar, newTag: v1.0.0}]\n",
				}
				directory := overlay(t, files)
				before := mustDecode(t, kustomize(t, directory+"/before"))
				after := mustDecode(t, kustomize(t, directory+"/after"))
				for _, complaint := range append(breaches(&workload(t, after).Spec),
					invalid(after[0])...) {
					t.Error(complaint)
				}
				if t.Failed() {
					return
				}
				requireSame(t, workload(t, before), withoutSidecar(workload(t, after)))
			})
		}
	}
}

// A group that changes is given all files of the pod's volumes. So the component refuses a pod that
// has one, and its twin leaves the pod's group alone.
func TestAPodWithAnFsGroupOfItsOwnKeepsIt(t *testing.T) {
	t.Parallel()
	for kind := range turned {
		for shape, context := range map[string]string{
			"a group":            "{fsGroup: 2000}",
			"a policy":           "{fsGroupChangePolicy: Always}",
			"a group and policy": "{runAsUser: 1000, fsGroup: 2000, fsGroupChangePolicy: Always}",
		} {
			for _, component := range []string{"component", "node-wide-worker"} {
				t.Run(component+", "+kind+" with "+shape, func(t *testing.T) {
					t.Parallel()
					directory := overlay(t, map[string]string{
						"before/kustomization.yaml":  "resources: [app.yaml]\n",
						"before/app.yaml":            withPod(kind, "securityContext: "+context+", containers: [{name: app, image: app}]"),
						"changed/kustomization.yaml": "resources: [../before]\ncomponents: [../../kubernetes/" + component + "]\n",
						"kept/kustomization.yaml":    "resources: [../before]\ncomponents: [../../kubernetes/" + component + "-with-own-fs-group]\n",
					})
					if said := refused(t, directory+"/changed"); !strings.Contains(said,
						"fsGroup") {
						t.Errorf("it is refused, but not for its fsGroup: %s", said)
					}
					before, after := mustDecode(t, kustomize(t, directory+"/before")),
						mustDecode(t, kustomize(t, directory+"/kept"))
					requireSame(t, workload(t, before).Spec.SecurityContext,
						workload(t, after).Spec.SecurityContext)
					if volume(&workload(t, after).Spec, socketVolume).Name == "" {
						t.Error("it has no socket")
					}
					if said := "`" + component +
						"-with-own-fs-group`"; !strings.Contains(kubernetesPage(t), said) {
						t.Errorf("the page does not lead to %s", said)
					}
				})
			}
		}
	}
}

// refused renders a directory that must not build, and returns why.
func refused(t *testing.T, directory string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool(t, "KUSTOMIZE"), "build",
		directory).CombinedOutput()
	if err == nil {
		t.Errorf("it builds:\n%s", out)
	}
	return string(out)
}

// withoutSidecar takes away what the component adds.
func withoutSidecar(template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	left := template.DeepCopy()
	ours := map[string]bool{socketVolume: true, configVolume: true, approleVolume: true}
	left.Spec.Volumes = slices.DeleteFunc(left.Spec.Volumes, func(v corev1.Volume) bool {
		return ours[v.Name]
	})
	left.Spec.InitContainers = left.Spec.InitContainers[1:]
	if group := left.Spec.SecurityContext.FSGroup; group != nil && *group == 65532 {
		left.Spec.SecurityContext.FSGroup, left.Spec.SecurityContext.FSGroupChangePolicy = nil, nil
	}
	worker := &left.Spec.Containers[0]
	worker.VolumeMounts = slices.DeleteFunc(worker.VolumeMounts, func(m corev1.VolumeMount) bool {
		return ours[m.Name]
	})
	worker.Env = slices.DeleteFunc(worker.Env, func(e corev1.EnvVar) bool {
		return e.Name == socketVariable
	})
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

// The page names each kind that the component turns, and some that it passes by, which stay as they
// are.
func TestThePageSaysWhichKindsGetTheSidecar(t *testing.T) {
	t.Parallel()
	steps := section(t, kubernetesPage(t), "In five minutes")
	turns := regexp.MustCompile(
		`changes every ([\w,\s]+?) of\s+the kustomization`).FindStringSubmatch(steps)
	if turns == nil {
		t.Fatal("the page does not say it")
	}
	said := regexp.MustCompile(`[A-Z]\w+`).FindAllString(turns[1], -1)
	tested := slices.Sorted(maps.Keys(turned))
	slices.Sort(said)
	if !slices.Equal(said, tested) {
		t.Errorf("the page says %q, the tests render %q", said, tested)
	}
	for kind, manifest := range map[string]string{
		"ReplicaSet": "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: app}, spec: {template: {spec: {containers: [{name: app, image: app}]}}}}",
		"Pod":        "{apiVersion: v1, kind: Pod, metadata: {name: app}, spec: {containers: [{name: app, image: app}]}}",
		"Rollout":    "{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: app}, spec: {template: {spec: {containers: [{name: app, image: app}]}}}}",
	} {
		out := kustomize(t, overlay(t, map[string]string{
			"kustomization.yaml": "resources: [app.yaml]\ncomponents: [../kubernetes/component]\n", "app.yaml": manifest,
		}))
		if strings.Contains(string(out), name) {
			t.Errorf("a %s gets something, the page says nothing:\n%s", kind, out)
		}
		if !regexp.MustCompile(`leaves[^:]+:[^.]*\b` + kind + `\b`).MatchString(steps) {
			t.Errorf("the page does not say that a %s gets nothing", kind)
		}
	}
}

// Others have a StatefulSet, a DaemonSet and a Job too. What those hold is not what a pod's part
// expects.
func TestSameNamedKindsOfOtherGroupsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	const pod = "{initContainers: [{name: mine, image: m}], volumes: [{name: mine, emptyDir: " +
		"{}}], containers: [{name: a, image: a, volumeMounts: [{name: mine, mountPath: /mine}]}]}"
	for name, manifest := range map[string]string{
		"StatefulSet of OpenKruise": "{apiVersion: apps.kruise.io/v1beta1, kind: StatefulSet, metadata: {name: app}, spec: {template: {spec: " + pod + "}}}",
		"DaemonSet of OpenKruise":   "{apiVersion: apps.kruise.io/v1alpha1, kind: DaemonSet, metadata: {name: app}, spec: {template: {spec: " + pod + "}}}",
		"Job of Volcano":            "{apiVersion: batch.volcano.sh/v1alpha1, kind: Job, metadata: {name: app}, spec: {tasks: [{name: t, template: {spec: " + pod + "}}]}}",
		"Deployment of nobody":      "{apiVersion: example.org/v1, kind: Deployment, metadata: {name: app}, spec: {template: {spec: " + pod + "}}}",
		"CronJob of nobody":         "{apiVersion: batch.example.org/v1, kind: CronJob, metadata: {name: app}, spec: {jobTemplate: {spec: {template: {spec: " + pod + "}}}}}",
	} {
		for _, component := range components {
			t.Run(component+", "+name, func(t *testing.T) {
				t.Parallel()
				directory := overlay(t, map[string]string{
					"before/kustomization.yaml": "resources: [app.yaml]\n",
					"before/app.yaml":           manifest,
					"after/kustomization.yaml":  "resources: [../before]\ncomponents: [../../kubernetes/" + component + "]\n",
				})
				before, after := kustomize(t, directory+"/before"), kustomize(t, directory+"/after")
				if !bytes.Equal(before, after) {
					t.Errorf("it was\n%s\nand is\n%s", before, after)
				}
			})
		}
	}
}

// A key that was left empty, as a template with nothing to say leaves it, is null: no list that an
// item could join.
func TestAWorkerWithEmptyKeysCanAskTheSidecar(t *testing.T) {
	t.Parallel()
	for kind := range turned {
		for shape, empty := range map[string]string{
			"no variables": "env: null",
			"no mounts":    "volumeMounts: null",
			"neither":      "env: null, volumeMounts: null",
		} {
			for _, component := range components {
				t.Run(component+", "+kind+" with "+shape, func(t *testing.T) {
					t.Parallel()
					pod := &workload(t, mustDecode(t, kustomize(t, overlay(t, map[string]string{
						"kustomization.yaml": "resources: [app.yaml]\ncomponents: [../kubernetes/" + component + "]\n",
						"app.yaml":           withPod(kind, "containers: [{name: app, image: app, "+empty+"}]"),
					})))).Spec
					c := pod.Containers[0]
					if mount(&c, socketVolume).MountPath == "" || len(c.Env) != 1 ||
						c.Env[0].Name != socketVariable {
						t.Errorf("it cannot ask: mounts %v, variables %v", c.VolumeMounts, c.Env)
					}
				})
			}
		}
	}
}
