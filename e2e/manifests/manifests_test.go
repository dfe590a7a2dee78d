package manifests_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
)

// judge returns what anybody has against a rendered manifest that adds the sidecar to a pod:
// Kubernetes' validation, the restricted Pod Security Standard, and this project's own rules.
func judge(t *testing.T, objects []runtime.Object) []string {
	t.Helper()
	var found []string
	for _, object := range objects {
		found = append(found, invalid(object)...)
		template := podTemplate(object)
		if template == nil {
			continue
		}
		forbidden, err := unrestricted(template)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, forbidden...)
		found = append(found, breaches(&template.Spec)...)
	}
	return found
}

func TestPodsWithTheSidecarPassEveryCheck(t *testing.T) {
	t.Parallel()
	for name, text := range map[string][]byte{
		"worker, by Kustomize": example(t, "worker/overlay"),
		"jobs, by Kustomize":   example(t, "batch/overlay"),
		"worker, by Helm":      helm(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := mustDecode(t, text)
			if !slices.ContainsFunc(objects, func(o runtime.Object) bool {
				return podTemplate(o) != nil
			}) {
				t.Fatal("there is no pod")
			}
			for _, complaint := range judge(t, objects) {
				t.Error(complaint)
			}
		})
	}
}

// A worker that is anything but restricted: the sidecar must be by itself.
func TestTheSidecarIsRestrictedWhateverItsPodIs(t *testing.T) {
	t.Parallel()
	for name, text := range map[string][]byte{
		"by Kustomize": example(t, "worker/overlay"),
		"by Helm":      helm(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			template := workload(t, mustDecode(t, text))
			template.Spec.SecurityContext = &corev1.PodSecurityContext{}
			template.Spec.Containers = []corev1.Container{*sidecar(&template.Spec)}
			forbidden, err := unrestricted(template)
			if err != nil {
				t.Fatal(err)
			}
			for _, complaint := range forbidden {
				t.Error(complaint)
			}
		})
	}
}

// workload returns the pods of the one object that makes any.
func workload(t *testing.T, objects []runtime.Object) *corev1.PodTemplateSpec {
	t.Helper()
	var found []*corev1.PodTemplateSpec
	for _, object := range objects {
		if template := podTemplate(object); template != nil {
			found = append(found, template)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects make pods, not one", len(found))
	}
	return found[0]
}

// Each check must be able to fail. A mutation breaks one thing, and its check says so.
func TestEveryCheckNoticesWhatItIsFor(t *testing.T) {
	t.Parallel()
	text := example(t, "worker/overlay")
	own := func(change func(*corev1.Container)) func(*corev1.PodSpec) {
		return func(pod *corev1.PodSpec) { change(sidecar(pod)) }
	}
	context := func(change func(*corev1.SecurityContext)) func(*corev1.PodSpec) {
		return own(func(c *corev1.Container) { change(c.SecurityContext) })
	}
	no, root := false, int64(0)
	for name, test := range map[string]struct {
		change func(*corev1.PodSpec)
		want   string
	}{
		// The restricted standard.
		"no seccomp profile": {func(pod *corev1.PodSpec) {
			pod.SecurityContext.SeccompProfile, sidecar(pod).SecurityContext.SeccompProfile = nil,
				nil
		}, "seccompProfile"},
		"may run as root": {func(pod *corev1.PodSpec) {
			pod.SecurityContext.RunAsNonRoot, sidecar(pod).SecurityContext.RunAsNonRoot = nil, nil
		}, "runAsNonRoot"},
		"says that it runs as root":   {context(func(c *corev1.SecurityContext) { c.RunAsNonRoot = &no }), "runAsNonRoot"},
		"runs as uid 0":               {context(func(c *corev1.SecurityContext) { c.RunAsUser = &root }), "runAsUser=0"},
		"may gain privileges":         {context(func(c *corev1.SecurityContext) { c.AllowPrivilegeEscalation = nil }), "allowPrivilegeEscalation"},
		"keeps capabilities":          {context(func(c *corev1.SecurityContext) { c.Capabilities = nil }), "unrestricted capabilities"},
		"the directory is the node's": {replaceVolume(socketVolume, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/run"}}), "hostPath"},
		"shares the node's network":   {func(pod *corev1.PodSpec) { pod.HostNetwork = true }, "host namespaces"},
		"a port of the node":          {own(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}} }), "hostPort"},
		// Kubernetes' validation and warnings.
		"a volume that is not there":       {func(pod *corev1.PodSpec) { pod.Volumes = pod.Volumes[1:] }, "volumeMounts"},
		"a probe of a container that ends": {func(pod *corev1.PodSpec) { pod.InitContainers[0].RestartPolicy = nil }, "livenessProbe"},
		"requests more than it may use":    {own(func(c *corev1.Container) { c.Resources.Requests[corev1.ResourceMemory] = resource.MustParse("1Gi") }), "must be less than or equal to memory limit"},
		"a variable twice": {func(pod *corev1.PodSpec) {
			pod.Containers[0].Env = append(pod.Containers[0].Env, pod.Containers[0].Env[0])
		}, "hides previous definition"},
		"an image without a name": {own(func(c *corev1.Container) { c.Image = "" }), "image: Required value"},
		// Rules of this project.
		"a container beside the worker": {func(pod *corev1.PodSpec) {
			pod.Containers, pod.InitContainers = append(pod.Containers, pod.InitContainers[0]), nil
		}, "not the first init container"},
		"starts after another one": {func(pod *corev1.PodSpec) {
			pod.InitContainers = append([]corev1.Container{{Name: "first", Image: "first"}},
				pod.InitContainers...)
		}, "not the first init container"},
		"an init container that has to end": {func(pod *corev1.PodSpec) { pod.InitContainers[0].RestartPolicy = nil }, "has to end"},
		"no startup probe":                  {own(func(c *corev1.Container) { c.StartupProbe = nil }), "no startup probe"},
		"no readiness probe":                {own(func(c *corev1.Container) { c.ReadinessProbe = nil }), "no readiness probe"},
		"no liveness probe":                 {own(func(c *corev1.Container) { c.LivenessProbe = nil }), "no liveness probe"},
		"a probe by TCP": {own(func(c *corev1.Container) {
			c.LivenessProbe.ProbeHandler = corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}
		}), "no liveness probe by exec"},
		"killed while Vault is out":    {own(func(c *corev1.Container) { c.LivenessProbe.Exec.Command = c.ReadinessProbe.Exec.Command }), "liveness probe runs"},
		"the worker waits for a login": {own(func(c *corev1.Container) { c.StartupProbe.Exec.Command = c.ReadinessProbe.Exec.Command }), "startup probe runs"},
		"ready without a login":        {own(func(c *corev1.Container) { c.ReadinessProbe.Exec.Command = c.LivenessProbe.Exec.Command }), "readiness probe runs"},
		"killed at once":               {own(func(c *corev1.Container) { c.LivenessProbe.FailureThreshold = 1 }), "gives up after 10 s"},
		"a port": {own(func(c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}
		}), "has a port"},
		"a socket on disk":           {replaceVolume(socketVolume, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), "no emptyDir in memory"},
		"a directory that grows":     {func(pod *corev1.PodSpec) { volume(pod, socketVolume).EmptyDir.SizeLimit = nil }, "may grow"},
		"the sidecar cannot write":   {own(func(c *corev1.Container) { c.VolumeMounts[0].ReadOnly = true }), "cannot make its socket"},
		"the worker has no mount":    {func(pod *corev1.PodSpec) { pod.Containers[0].VolumeMounts = nil }, "does not see the socket"},
		"the worker has no variable": {func(pod *corev1.PodSpec) { pod.Containers[0].Env = nil }, "not told where the socket is"},
		"the worker may write": {func(pod *corev1.PodSpec) {
			pod.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: socketVolume,
				MountPath: "/run/secret-sidecar"}}
		}, "flows can put another socket"},
		"credentials for all": {func(pod *corev1.PodSpec) {
			open := int32(0o644)
			volume(pod, approleVolume).Secret.DefaultMode = &open
		}, "not of mode 0440"},
		"the worker reads credentials": {func(pod *corev1.PodSpec) {
			pod.Containers[0].VolumeMounts = append(pod.Containers[0].VolumeMounts,
				corev1.VolumeMount{Name: approleVolume, MountPath: "/stolen"})
		}, "flows can read the credentials"},
		"credentials by subPath":      {own(func(c *corev1.Container) { c.VolumeMounts[2].SubPath = "secret_id" }), "would not see them rotate"},
		"a configuration by subPath":  {own(func(c *corev1.Container) { c.VolumeMounts[1].SubPath = "config.yaml" }), "by subPath"},
		"a configuration elsewhere":   {own(func(c *corev1.Container) { c.VolumeMounts[1].MountPath = "/elsewhere" }), "no file of its ConfigMap"},
		"a secret as a configuration": {replaceVolume(configVolume, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "x"}}), "no ConfigMap"},
		"no group":                    {func(pod *corev1.PodSpec) { pod.SecurityContext.FSGroup = nil }, "share no group"},
		"a walk at every start":       {func(pod *corev1.PodSpec) { pod.SecurityContext.FSGroupChangePolicy = nil }, "walks through its volumes"},
		"too little memory requested": {own(func(c *corev1.Container) { c.Resources.Requests[corev1.ResourceMemory] = resource.MustParse("32Mi") }), "requests 32Mi of memory"},
		"too little memory allowed":   {own(func(c *corev1.Container) { c.Resources.Limits[corev1.ResourceMemory] = resource.MustParse("128Mi") }), "may use 128Mi of memory"},
		"no memory limit":             {own(func(c *corev1.Container) { delete(c.Resources.Limits, corev1.ResourceMemory) }), "may use 0 of memory"},
		"a CPU limit":                 {own(func(c *corev1.Container) { c.Resources.Limits[corev1.ResourceCPU] = resource.MustParse("1") }), "CPU is limited"},
		"no CPU request":              {own(func(c *corev1.Container) { delete(c.Resources.Requests, corev1.ResourceCPU) }), "requests no CPU"},
		"too little time to end":      {func(pod *corev1.PodSpec) { *pod.TerminationGracePeriodSeconds = 6 }, "the pod has 6s to end"},
		"no drain timeout":            {own(func(c *corev1.Container) { c.Args = c.Args[:2] }), "drain timeout is not said"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := mustDecode(t, text)
			test.change(&workload(t, objects).Spec)
			found := judge(t, objects)
			if !slices.ContainsFunc(found, func(complaint string) bool {
				return strings.Contains(complaint, test.want)
			}) {
				t.Errorf("nobody says %q: %q", test.want, found)
			}
		})
	}
}

func replaceVolume(called string, source corev1.VolumeSource) func(*corev1.PodSpec) {
	return func(pod *corev1.PodSpec) {
		at := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == called })
		pod.Volumes[at].VolumeSource = source
	}
}

func TestAnUnknownOrRepeatedFieldIsAnError(t *testing.T) {
	t.Parallel()
	text := string(example(t, "worker/overlay"))
	for name, test := range map[string]struct{ old, replacement, want string }{
		"misspelled":  {"readinessProbe:", "readynessProbe:", `unknown field "spec.template.spec.initContainers[0].readynessProbe"`},
		"wrong place": {"fsGroup: 65532", "fsGroup: 65532\n        capabilities: {}", "unknown field"},
		"twice":       {"fsGroup: 65532", "fsGroup: 65532\n        fsGroup: 65532", "fsGroup"},
		"wrong type":  {"readOnly: true", `readOnly: "true"`, "readOnly"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := strings.Replace(text, test.old, test.replacement, 1)
			if changed == text {
				t.Fatalf("there is no %q", test.old)
			}
			_, err := decode([]byte(changed))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}
