package manifests_test

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestNothingKeepsPodsOrNodesFromGoing(t *testing.T) {
	t.Parallel()
	texts := [][]byte{helm(t)}
	for _, each := range []string{"worker/overlay", "batch/overlay", "node-wide/sidecar",
		"node-wide/worker"} {
		texts = append(texts, example(t, each))
	}
	for _, text := range texts {
		for _, object := range mustDecode(t, text) {
			for _, complaint := range keeps(object) {
				t.Error(complaint)
			}
		}
	}
}

func TestWhatKeepsAPodOrNodeIsNoticed(t *testing.T) {
	t.Parallel()
	if found := keeps(&policyv1.PodDisruptionBudget{}); len(found) != 1 {
		t.Errorf("a PodDisruptionBudget: %q", found)
	}
	onDisk := only[*appsv1.Deployment](t, mustDecode(t, example(t, "worker/overlay")))
	volume(&onDisk.Spec.Template.Spec, socketVolume).EmptyDir.Medium = corev1.StorageMediumDefault
	if found := keeps(onDisk); len(found) != 1 {
		t.Errorf("a socket on disk: %q", found)
	}
	silent := only[*appsv1.Deployment](t, mustDecode(t, example(t, "node-wide/worker")))
	silent.Spec.Template.Annotations = nil
	if found := keeps(silent); len(found) != 1 {
		t.Errorf("a hostPath without the annotation: %q", found)
	}
}

// keeps returns what of the sidecar's keeps a pod from being evicted, or its node from being
// removed. The cluster autoscaler's rule is isLocalVolume in its utils/drain: a directory in memory
// is none of its business, one on disk or of the node is, unless the pod says that it holds
// nothing. It ignores DaemonSets.
func keeps(object runtime.Object) []string {
	if _, budget := object.(*policyv1.PodDisruptionBudget); budget {
		return []string{"whether a pod may go is its owner's to say"}
	}
	template := podTemplate(object)
	if _, everywhere := object.(*appsv1.DaemonSet); everywhere || template == nil {
		return nil
	}
	safe := strings.Split(
		template.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"], ",")
	var found []string
	for _, v := range template.Spec.Volumes {
		local := v.HostPath != nil || v.EmptyDir != nil &&
			v.EmptyDir.Medium != corev1.StorageMediumMemory
		if strings.HasPrefix(v.Name, name) && local && !slices.Contains(safe, v.Name) {
			found = append(found, "the cluster autoscaler keeps a node for volume "+v.Name)
		}
	}
	return found
}
