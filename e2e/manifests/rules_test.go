package manifests_test

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	name            = "secret-sidecar"
	socketVolume    = "secret-sidecar-socket"
	configVolume    = "secret-sidecar-config"
	approleVolume   = "secret-sidecar-approle"
	socketVariable  = "SECRET_SIDECAR_SOCKET"
	socketFile      = "sidecar.sock"
	revocation      = 2 * time.Second // that the sidecar takes at most to revoke its tokens
	defaultMaxBytes = 64 << 20        // cache.max_bytes
	// what a running `secret-sidecar health` takes beside the program's text
	probeBytes = 4_000_000
)

// rules are what this project promises of a pod beyond what Kubernetes asks for. Each returns what
// is wrong, or "".
var rules = []func(*corev1.PodSpec) string{
	sidecarIsNative,
	sidecarHasTheRightProbes,
	sidecarOpensNoPort,
	socketIsInMemory,
	workerReachesTheSocketAndCannotReplaceIt,
	onlyTheSidecarReadsTheCredentials,
	configurationFollowsItsConfigMap,
	groupIsShared,
	memoryIsWhatTheBenchmarkSaw,
	cpuHasNoLimit,
	graceIsLongEnough,
}

// breaches returns what is wrong with a pod that holds the sidecar.
func breaches(pod *corev1.PodSpec) []string {
	var found []string
	for _, rule := range rules {
		if complaint := rule(pod); complaint != "" {
			found = append(found, complaint)
		}
	}
	return found
}

// sidecar returns the sidecar's container, wherever it is in the pod.
func sidecar(pod *corev1.PodSpec) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		if at := slices.IndexFunc(list, func(c corev1.Container) bool {
			return c.Name == name
		}); at >= 0 {
			return &list[at]
		}
	}
	return &corev1.Container{}
}

func others(pod *corev1.PodSpec) []corev1.Container {
	all := slices.Concat(pod.InitContainers, pod.Containers)
	return slices.DeleteFunc(all, func(c corev1.Container) bool { return c.Name == name })
}

func volume(pod *corev1.PodSpec, called string) corev1.Volume {
	at := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == called })
	if at < 0 {
		return corev1.Volume{}
	}
	return pod.Volumes[at]
}

func mount(c *corev1.Container, called string) corev1.VolumeMount {
	at := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.Name == called
	})
	if at < 0 {
		return corev1.VolumeMount{}
	}
	return c.VolumeMounts[at]
}

func argument(c *corev1.Container, flag string) string {
	for _, each := range c.Args {
		if value, ok := strings.CutPrefix(each, flag+"="); ok {
			return value
		}
	}
	return ""
}

func sidecarIsNative(pod *corev1.PodSpec) string {
	if len(pod.InitContainers) == 0 || pod.InitContainers[0].Name != name {
		return "the sidecar is not the first init container"
	}
	if policy := pod.InitContainers[0].RestartPolicy; policy == nil ||
		*policy != corev1.ContainerRestartPolicyAlways {
		return "the sidecar is an init container that has to end"
	}
	return ""
}

func sidecarHasTheRightProbes(pod *corev1.PodSpec) string {
	c := sidecar(pod)
	alive, ready := "/secret-sidecar health --service=liveness", "/secret-sidecar health"
	for _, probe := range []struct {
		kind, command string
		probe         *corev1.Probe
	}{{"startup", alive, c.StartupProbe}, {"readiness", ready, c.ReadinessProbe},
		{"liveness", alive, c.LivenessProbe}} {
		if probe.probe == nil || probe.probe.Exec == nil {
			return "there is no " + probe.kind + " probe by exec"
		}
		if got := strings.Join(probe.probe.Exec.Command, " "); got != probe.command {
			return fmt.Sprintf("the %s probe runs %q, not %q", probe.kind, got, probe.command)
		}
	}
	if patience := c.LivenessProbe.PeriodSeconds * c.LivenessProbe.FailureThreshold; patience < 60 {
		return fmt.Sprintf("the liveness probe gives up after %d s: a restart costs the cache",
			patience)
	}
	return ""
}

func sidecarOpensNoPort(pod *corev1.PodSpec) string {
	if len(sidecar(pod).Ports) > 0 {
		return "the sidecar has a port"
	}
	return ""
}

func socketIsInMemory(pod *corev1.PodSpec) string {
	directory := volume(pod, socketVolume).EmptyDir
	switch {
	case directory == nil || directory.Medium != corev1.StorageMediumMemory:
		return "the socket's directory is no emptyDir in memory"
	case directory.SizeLimit == nil || directory.SizeLimit.Value() > 1<<20:
		return "the socket's directory may grow: it counts as memory of the pod"
	}
	return ""
}

func workerReachesTheSocketAndCannotReplaceIt(pod *corev1.PodSpec) string {
	own, worker := mount(sidecar(pod), socketVolume), mount(&pod.Containers[0], socketVolume)
	if own.MountPath == "" || own.ReadOnly {
		return "the sidecar cannot make its socket"
	}
	if worker.MountPath == "" {
		return "the worker does not see the socket's directory"
	}
	want := corev1.EnvVar{Name: socketVariable, Value: path.Join(worker.MountPath, socketFile)}
	if !slices.Contains(pod.Containers[0].Env, want) {
		return "the worker is not told where the socket is"
	}
	for _, c := range others(pod) {
		if m := mount(&c, socketVolume); m.MountPath != "" && !m.ReadOnly {
			return c.Name + " can put another socket in the place"
		}
	}
	return ""
}

func onlyTheSidecarReadsTheCredentials(pod *corev1.PodSpec) string {
	secret := volume(pod, approleVolume).Secret
	if secret == nil || secret.DefaultMode == nil || *secret.DefaultMode != 0o440 {
		return "the credentials are not of mode 0440"
	}
	if own := mount(sidecar(pod), approleVolume); own.MountPath == "" || !own.ReadOnly ||
		own.SubPath != "" {
		return "the sidecar does not see its credentials, or would not see them rotate"
	}
	for _, c := range others(pod) {
		if mount(&c, approleVolume).MountPath != "" {
			return c.Name + " can read the credentials"
		}
	}
	return ""
}

func configurationFollowsItsConfigMap(pod *corev1.PodSpec) string {
	if volume(pod, configVolume).ConfigMap == nil {
		return "the configuration is no ConfigMap"
	}
	own := mount(sidecar(pod), configVolume)
	switch {
	case own.SubPath != "" || own.SubPathExpr != "":
		return "the configuration is mounted by subPath, which never changes"
	case own.MountPath == "" || argument(sidecar(pod), "--config") != path.Join(own.MountPath,
		"config.yaml"):
		return "the sidecar reads no file of its ConfigMap"
	}
	return ""
}

func groupIsShared(pod *corev1.PodSpec) string {
	if pod.SecurityContext == nil || pod.SecurityContext.FSGroup == nil {
		return "the worker and the sidecar share no group"
	}
	if policy := pod.SecurityContext.FSGroupChangePolicy; policy == nil ||
		*policy != corev1.FSGroupChangeOnRootMismatch {
		return "every start of the pod walks through its volumes to change their group"
	}
	return ""
}

// memoryIsWhatTheBenchmarkSaw checks the arithmetic of docs/kubernetes-pod.md#sizing.
func memoryIsWhatTheBenchmarkSaw(pod *corev1.PodSpec) string {
	resources := sidecar(pod).Resources
	request, limit := resources.Requests[corev1.ResourceMemory],
		resources.Limits[corev1.ResourceMemory]
	if least := benchmark.tenThousand + 2*probeBytes; request.Value() < least {
		return fmt.Sprintf("the sidecar requests %s of memory: 10,000 secrets and two probes "+
			"take %d bytes", request.String(), least)
	}
	if least := fullCache() + 2*probeBytes + 1<<20; limit.Value() < least*13/10 {
		return fmt.Sprintf("the sidecar may use %s of memory: a full cache and two probes take "+
			"%d bytes", limit.String(), least)
	}
	return ""
}

// fullCache is what a busy process takes with the default cache full, about 130 MB. The cache
// counts 432 bytes for a secret beside its texts, here 50 and 256 bytes; the heap takes what was
// measured, and grows by half before garbage is collected.
func fullCache() int64 {
	secrets := int64(defaultMaxBytes / (432 + 50 + 256))
	return benchmark.tenThousand + secrets*benchmark.perSecret*3/2
}

func cpuHasNoLimit(pod *corev1.PodSpec) string {
	resources := sidecar(pod).Resources
	if request := resources.Requests[corev1.ResourceCPU]; request.Cmp(
		resource.MustParse("25m")) < 0 {
		return "the sidecar requests no CPU"
	}
	if _, limited := resources.Limits[corev1.ResourceCPU]; limited {
		return "the sidecar's CPU is limited: it would be throttled in the middle of a burst"
	}
	return ""
}

// graceIsLongEnough checks that the sidecar could drain and revoke its tokens even if the worker
// ended at once. What the worker itself takes is the worker's to add.
func graceIsLongEnough(pod *corev1.PodSpec) string {
	drain, err := time.ParseDuration(argument(sidecar(pod), "--drain-timeout"))
	if err != nil {
		return "the sidecar's drain timeout is not said"
	}
	grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
	if grace < drain+revocation {
		return fmt.Sprintf("the pod has %v to end, the sidecar takes %v", grace, drain+revocation)
	}
	return ""
}
