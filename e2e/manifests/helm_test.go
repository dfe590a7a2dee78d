package manifests_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

func TestTheChartsPassHelmsOwnCheck(t *testing.T) {
	t.Parallel()
	folder := helmCharts(t)
	run(t, tool(t, "HELM"), "lint", "--strict", filepath.Join(folder, "secret-sidecar"), filepath.Join(folder, "worker"))
}

func TestTheChartRefusesValuesThatAreWrong(t *testing.T) {
	t.Parallel()
	chart := filepath.Join(helmCharts(t), "worker")
	for name, test := range map[string]struct{ value, want string }{
		"a misspelled key":               {"secret-sidecar.imag.tag=v1", "imag"},
		"a misspelled key of the image":  {"secret-sidecar.image.tagg=v1", "tagg"},
		"an image without a tag":         {"secret-sidecar.image.tag=", "set secret-sidecar.image.tag"},
		"a digest that is none":          {"secret-sidecar.image.digest=v1", "digest"},
		"a secret_id":                    {"secret-sidecar.config.connections[0].secret_id=x", "no place for a secret_id"},
		"no memory limit":                {"secret-sidecar.resources.limits=null", "limits"},
		"a drain timeout without a unit": {"secret-sidecar.drainTimeout=5", "drainTimeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := exec.CommandContext(t.Context(), tool(t, "HELM"), "template", "worker", chart, "--set", test.value)
			out, err := command.CombinedOutput()
			if err == nil || !strings.Contains(string(out), test.want) {
				t.Errorf("%v, want an error about %q:\n%s", err, test.want, out)
			}
		})
	}
}

func TestTheChartTakesItsValues(t *testing.T) {
	t.Parallel()
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	objects := mustDecode(t, helm(t,
		"--set", "secret-sidecar.image.digest="+digest, "--set", "secret-sidecar.image.pullPolicy=Always",
		"--set", "secret-sidecar.fsGroup=2000000000", "--set", "secret-sidecar.drainTimeout=20s",
		"--set", "secret-sidecar.configMap=other-config", "--set", "secret-sidecar.approleSecret=other-approle",
		"--set", "secret-sidecar.env[0].name=OTEL_EXPORTER_OTLP_ENDPOINT", "--set", "secret-sidecar.env[0].value=http://collector:4318",
		"--set", "secret-sidecar.config.caller_limits.in_flight=2000000",
	))
	pod := &only[*appsv1.Deployment](t, objects).Spec.Template.Spec
	for _, complaint := range judge(t, objects) {
		t.Error(complaint)
	}
	c := sidecar(pod)
	for what, pair := range map[string][2]any{
		"image":       {c.Image, "registry.example/secret-sidecar@" + digest},
		"pull policy": {c.ImagePullPolicy, corev1.PullAlways},
		"group":       {*pod.SecurityContext.FSGroup, int64(2_000_000_000)},
		"drain":       {argument(c, "--drain-timeout"), "20s"},
		"ConfigMap":   {volume(pod, configVolume).ConfigMap.Name, only[*corev1.ConfigMap](t, objects).Name},
		"Secret":      {volume(pod, approleVolume).Secret.SecretName, "other-approle"},
		"variable":    {c.Env[0].Value, "http://collector:4318"},
		"a number":    {load(t, only[*corev1.ConfigMap](t, objects).Data["config.yaml"]).CallerLimits.InFlight, 2_000_000},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
}
