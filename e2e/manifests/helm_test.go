package manifests_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

func TestTheChartsPassHelmsOwnCheck(t *testing.T) {
	t.Parallel()
	directory := helmCharts(t)
	run(t, tool(t, "HELM"), "lint", "--strict", filepath.Join(directory, "secret-sidecar"),
		filepath.Join(directory, "worker"))
}

func TestTheChartRefusesValuesThatAreWrong(t *testing.T) {
	t.Parallel()
	chart := filepath.Join(helmCharts(t), "worker")
	for name, test := range map[string]struct{ value, want string }{
		"a misspelled key":                      {"secret-sidecar.imag.tag=v1", "imag"},
		"a misspelled key of the image":         {"secret-sidecar.image.tagg=v1", "tagg"},
		"an image without a tag":                {"secret-sidecar.image.tag=", "set secret-sidecar.image.tag"},
		"a digest that is none":                 {"secret-sidecar.image.digest=v1", "digest"},
		"a secret_id":                           {"secret-sidecar.config.connections[0].secret_id=x", "no place for a secret_id"},
		"a socket that nobody asks":             {"secret-sidecar.config.socket.path=/run/secret-sidecar/other.sock", "leave out secret-sidecar.config.socket.path"},
		"a second configuration":                {`secret-sidecar.files.config\.yaml=x`, "files"},
		"a misspelled request":                  {"secret-sidecar.resources.request.cpu=1", "request"},
		"a misspelled value of a variable":      {"secret-sidecar.env[0].vale=x,secret-sidecar.env[0].name=X", "vale"},
		"a variable that is a number":           {"secret-sidecar.env[0].value=9465,secret-sidecar.env[0].name=X", "value"},
		"a misspelled key of the configuration": {"secret-sidecar.config.conections=x", "conections"},
		"a mode that is a number":               {"secret-sidecar.config.socket.mode=432", "mode"},
		"no memory limit":                       {"secret-sidecar.resources.limits=null", "limits"},
		"a drain timeout without a unit":        {"secret-sidecar.drainTimeout=5", "drainTimeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireHelmSays(t, test.want, "template", "worker", chart, "--set", test.value)
		})
	}
}

func TestTheChartKnowsTheKeysOfTheConfiguration(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("no-such-key: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(file, func(string) (string, bool) { return "", false })
	known := regexp.MustCompile(`the keys here are ([\w, ]+)`).FindStringSubmatch(fmt.Sprint(err))
	if known == nil {
		t.Fatalf("the sidecar does not say which keys it knows: %v", err)
	}
	text, err := os.ReadFile(deploy + "/helm/secret-sidecar/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties struct {
			Config struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	want := strings.Split(known[1], ", ")
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(schema.Properties.Config.Properties)); !slices.Equal(got,
		want) {
		t.Errorf("the schema knows %q, the sidecar %q", got, want)
	}
}

// Helm looks at the kubeVersion of the chart that it installs, and at none of its dependencies'.
func TestTheChartRefusesAKubernetesWithoutNativeSidecars(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ change, version, want string }{
		"the example's own chart":           {"", "1.28.15", "kubeVersion: >=1.29.0-0"},
		"a chart that says nothing of it":   {"kubeVersion:", "1.28.15", "secret-sidecar needs Kubernetes 1.29"},
		"a provider's version":              {"kubeVersion:", "1.28.9-gke.1000", "secret-sidecar needs Kubernetes 1.29"},
		"a provider's version that has it":  {"kubeVersion:", "1.29.0-gke.1000", ""},
		"the first version that has it":     {"kubeVersion:", "1.29.0", ""},
		"the example's chart on a late one": {"", "1.34.0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chart := filepath.Join(helmCharts(t), "worker")
			if test.change != "" {
				replace(t, filepath.Join(chart, "Chart.yaml"), test.change, "# "+test.change)
			}
			requireHelmSays(t, test.want, "template", "worker", chart, "--kube-version",
				test.version)
		})
	}
}

// Under an alias Helm puts the library's own values where its templates do not look.
func TestTheChartRefusesAnAlias(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]string{
		"with its values under the chart's name": "secret-sidecar:",
		"with its values under the alias":        "sc:",
	} {
		for _, template := range []string{"initContainer", "podSecurityContext", "volumes",
			"configMap"} {
			t.Run(name+", "+template, func(t *testing.T) {
				t.Parallel()
				chart := filepath.Join(helmCharts(t), "worker")
				replace(t, filepath.Join(chart, "Chart.yaml"), "    repository:",
					"    alias: sc\n    repository:")
				replace(t, filepath.Join(chart, "values.yaml"), "secret-sidecar:", values)
				if err := os.WriteFile(filepath.Join(chart, "templates", "configmap.yaml"),
					[]byte(`{{ include "secret-sidecar.`+template+`" . }}`), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(filepath.Join(chart, "templates",
					"deployment.yaml")); err != nil {
					t.Fatal(err)
				}
				requireHelmSays(t, "the dependency takes no alias", "template", "worker", chart)
			})
		}
	}
}

// requireHelmSays runs helm, which has to fail with these words; without any it has to succeed.
func requireHelmSays(t *testing.T, want string, arguments ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool(t, "HELM"), arguments...).CombinedOutput()
	if (err == nil) != (want == "") || !strings.Contains(string(out), want) {
		t.Errorf("%v, want an error about %q:\n%s", err, want, out)
	}
}

// replace replaces what a file holds once.
func replace(t *testing.T, file, old, text string) {
	t.Helper()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(before), old) != 1 {
		t.Fatalf("%s does not hold %q once:\n%s", file, old, before)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(before), old, text, 1)),
		0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheChartTakesItsValues(t *testing.T) {
	t.Parallel()
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	objects := mustDecode(t, helm(t,
		"--set", "secret-sidecar.image.digest="+digest, "--set",
		"secret-sidecar.image.pullPolicy=Always",
		"--set", "secret-sidecar.fsGroup=2000000000", "--set", "secret-sidecar.drainTimeout=20s",
		"--set", "secret-sidecar.configMap=other-config", "--set",
		"secret-sidecar.approleSecret=other-approle",
		"--set", "secret-sidecar.env[1].name=NODE", "--set",
		"secret-sidecar.env[1].valueFrom.fieldRef.fieldPath=spec.nodeName",
		"--set", "secret-sidecar.env[0].name=OTEL_EXPORTER_OTLP_ENDPOINT", "--set",
		"secret-sidecar.env[0].value=http://collector:4318",
		"--set", "secret-sidecar.config.caller_limits.in_flight=2000000",
		"--set", "secret-sidecar.config.socket.path=/run/secret-sidecar/sidecar.sock",
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

func TestAReleaseAndANamespaceMayBeCalledByANumber(t *testing.T) {
	t.Parallel()
	chart := filepath.Join(helmCharts(t), "worker")
	objects := mustDecode(t, run(t, tool(t, "HELM"), "template", "123", chart, "--namespace",
		"456"))
	for _, complaint := range judge(t, objects) {
		t.Error(complaint)
	}
	if made := only[*corev1.ConfigMap](t, objects); made.Namespace != "456" {
		t.Errorf("the ConfigMap is in %q", made.Namespace)
	}
}

// The page's own option puts a certificate authority where the configuration finds it.
func TestTheChartBringsACertificateAuthorityToTheSidecar(t *testing.T) {
	t.Parallel()
	option := regexp.MustCompile("`--set-file '(\\S+)=(\\S+)'`").FindStringSubmatch(
		kubernetesPage(t))
	if option == nil {
		t.Fatal("the page does not say how")
	}
	authority := filepath.Join(t.TempDir(), option[2])
	const text = "-----BEGIN CERTIFICATE-----\nmine\n-----END CERTIFICATE-----\n"
	if err := os.WriteFile(authority, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	objects := mustDecode(t, helm(t, "--set-file", option[1]+"="+authority, "--set",
		"secret-sidecar.config.connections[0].tls.ca_file="+option[2],
		"--set", "secret-sidecar.config.connections[0].name=prod", "--set",
		"secret-sidecar.config.connections[0].scope=platform",
		"--set", "secret-sidecar.config.connections[0].address=https://vault.example:8200",
		"--set",
		"secret-sidecar.config.connections[0].role_id_file=/etc/secret-sidecar-approle/role_id",
		"--set",
		"secret-sidecar.config.connections[0].secret_id_file=/etc/secret-sidecar-approle/secret_id"))
	for _, complaint := range judge(t, objects) {
		t.Error(complaint)
	}
	data := only[*corev1.ConfigMap](t, objects).Data
	trusted := load(t, data["config.yaml"]).Connections[0].Vault.TLS.CAFile
	if data[filepath.Base(trusted)] != text {
		t.Errorf("the configuration trusts %s, the ConfigMap holds %q", trusted, data)
	}
}
