package manifests_test

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// A socket that pods share is a directory of the node, which the restricted standard forbids.
// Nothing else may offend it but the container that gives the directory to the sidecar.
func TestTheNodeWideSidecarIsRestrictedButForItsDirectory(t *testing.T) {
	t.Parallel()
	objects := mustDecode(t, example(t, "node-wide/sidecar"))
	for _, object := range objects {
		for _, complaint := range invalid(object) {
			t.Error(complaint)
		}
	}
	template := &only[*appsv1.DaemonSet](t, objects).Spec.Template
	requireForbidden(t, template,
		"restricted volume types",                                          // the directory
		"runAsNonRoot != true", "runAsUser=0", "unrestricted capabilities", // give-directory
	)
	template.Spec.InitContainers = nil
	requireForbidden(t, template, "restricted volume types")
}

func TestAWorkerOfTheNodeWideSidecarIsRestrictedButForTheDirectory(t *testing.T) {
	t.Parallel()
	objects := mustDecode(t, example(t, "node-wide/worker"))
	for _, object := range objects {
		for _, complaint := range invalid(object) {
			t.Error(complaint)
		}
	}
	requireForbidden(t, workload(t, objects), "restricted volume types")
}

// requireForbidden wants these reasons, and no other.
func requireForbidden(t *testing.T, template *corev1.PodTemplateSpec, reasons ...string) {
	t.Helper()
	forbidden, err := unrestricted(template)
	if err != nil {
		t.Fatal(err)
	}
	for _, complaint := range forbidden {
		reason, _, _ := strings.Cut(complaint, ":")
		if !slices.Contains(reasons, reason) {
			t.Errorf("unexpected: %s", complaint)
		}
	}
	if len(forbidden) != len(reasons) {
		t.Errorf("forbidden for %q, want %q", forbidden, reasons)
	}
}

func TestTheNodeWideSidecarKeepsTheRulesThatHoldForIt(t *testing.T) {
	t.Parallel()
	daemons := only[*appsv1.DaemonSet](t, mustDecode(t, example(t, "node-wide/sidecar")))
	pod := &daemons.Spec.Template.Spec
	for _, rule := range []func(*corev1.PodSpec) string{
		sidecarHasTheRightProbes, sidecarOpensNoPort, onlyTheSidecarReadsTheCredentials,
		configurationFollowsItsConfigMap,
		groupIsShared, memoryIsWhatTheBenchmarkSaw, cpuHasNoLimit, graceIsLongEnough,
	} {
		if complaint := rule(pod); complaint != "" {
			t.Error(complaint)
		}
	}
	if surge := daemons.Spec.UpdateStrategy.RollingUpdate.MaxSurge; surge.IntValue() != 0 {
		t.Error("two sidecars of a node would quarrel about the socket")
	}
	if pod.PriorityClassName != "system-node-critical" {
		t.Error("a node that shuts down ends the sidecar before its workers")
	}
	if token := pod.AutomountServiceAccountToken; token == nil || *token {
		t.Error("the sidecar has a Kubernetes token, which it has no use for")
	}
}

func TestAWorkerAndItsNodesSidecarMeetAtTheSameSocket(t *testing.T) {
	t.Parallel()
	serves := &workload(t, mustDecode(t, example(t, "node-wide/sidecar"))).Spec
	asks := &workload(t, mustDecode(t, example(t, "node-wide/worker"))).Spec
	if serves, asks := volume(serves, socketVolume).HostPath.Path,
		volume(asks, socketVolume).HostPath.Path; serves != asks {
		t.Errorf("the sidecar's directory is %s, the worker's %s", serves, asks)
	}
	if *serves.SecurityContext.FSGroup != *asks.SecurityContext.FSGroup ||
		*sidecar(serves).SecurityContext.RunAsGroup != *asks.SecurityContext.FSGroup {
		t.Error("the worker is not of the socket's group")
	}
	// The rule about the worker's side wants a sidecar in the pod.
	asks.InitContainers = []corev1.Container{{Name: name,
		VolumeMounts: []corev1.VolumeMount{{Name: socketVolume, MountPath: "/run/secret-sidecar"}}}}
	if complaint := workerReachesTheSocketAndCannotReplaceIt(asks); complaint != "" {
		t.Error(complaint)
	}
}

// GKE's admission wants a quota that covers the priority class wherever that is used outside of
// kube-system.
func TestAQuotaAdmitsTheNodesSidecarByItsPriority(t *testing.T) {
	t.Parallel()
	objects := mustDecode(t, example(t, "node-wide/sidecar"))
	daemons, quota := only[*appsv1.DaemonSet](t, objects), only[*corev1.ResourceQuota](t, objects)
	if quota.Namespace != daemons.Namespace {
		t.Errorf("the quota is in %s, the sidecar in %s", quota.Namespace, daemons.Namespace)
	}
	if pods := quota.Spec.Hard[corev1.ResourcePods]; pods.Value() < 5_000 ||
		len(quota.Spec.Hard) != 1 {
		t.Errorf("%v would keep the sidecar from nodes of a large cluster", quota.Spec.Hard)
	}
	if quota.Spec.ScopeSelector == nil || len(quota.Spec.ScopeSelector.MatchExpressions) != 1 {
		t.Fatal("the quota is about every pod")
	}
	scope := quota.Spec.ScopeSelector.MatchExpressions[0]
	if scope.ScopeName != corev1.ResourceQuotaScopePriorityClass ||
		scope.Operator != corev1.ScopeSelectorOpIn ||
		!slices.Contains(scope.Values, daemons.Spec.Template.Spec.PriorityClassName) {
		t.Errorf("the quota is about %v, not about the sidecar's priority class", scope)
	}
}

func TestTheNodesSidecarRunsWhereverAWorkerMay(t *testing.T) {
	t.Parallel()
	pod := &workload(t, mustDecode(t, example(t, "node-wide/sidecar"))).Spec
	for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule,
		corev1.TaintEffectNoExecute} {
		taint := corev1.Taint{Key: "a-pool-of-its-own", Value: "flows", Effect: effect}
		if !slices.ContainsFunc(pod.Tolerations, func(t corev1.Toleration) bool {
			return t.ToleratesTaint(&taint)
		}) {
			t.Errorf("a node with the taint %s gets no sidecar, and its workers wait for ever",
				taint.ToString())
		}
	}
	if asks := volume(&workload(t, mustDecode(t, example(t, "node-wide/worker"))).Spec,
		socketVolume).HostPath; *asks.Type == corev1.HostPathDirectory &&
		!strings.Contains(section(t, kubernetesPage(t), "When something is wrong"),
			asks.Path+" is not a directory") {
		t.Error("nobody tells what a worker waits for")
	}
}

func TestTheExampleTakesEveryImageFromOneRegistry(t *testing.T) {
	t.Parallel()
	pod := &workload(t, mustDecode(t, example(t, "node-wide/sidecar"))).Spec
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		if !strings.HasPrefix(c.Image, "registry.example/") {
			t.Errorf("%s is %s, from a registry that the example does not name", c.Name, c.Image)
		}
	}
}
