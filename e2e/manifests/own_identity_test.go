package manifests_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const ownIdentityExample = "worker/overlay-own-identity"

// helmOwnIdentity is the worker's chart with the values of the example's own.
func helmOwnIdentity(t *testing.T) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	const values = `serviceAccountName: worker
secret-sidecar:
  ownIdentity: {audience: vault}
  config:
    connections:
      - name: prod
        scope: platform
        address: https://vault.example:8200
        auth:
          method: kubernetes
          role: flow-worker
          token_file: /var/run/secrets/secret-sidecar/token
        max_waiting: 1000
`
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return helm(t, "--values", file)
}

func TestTheChartAndTheComponentGiveAPodTheSameIdentity(t *testing.T) {
	t.Parallel()
	byKustomize, byHelm := mustDecode(t, example(t, ownIdentityExample)), mustDecode(t, helmOwnIdentity(t))
	one, other := only[*appsv1.Deployment](t, byKustomize), only[*appsv1.Deployment](t, byHelm)
	for _, each := range []*appsv1.Deployment{one, other} {
		slices.SortFunc(each.Spec.Template.Spec.Volumes, func(a, b corev1.Volume) int { return strings.Compare(a.Name, b.Name) })
		container := sidecar(&each.Spec.Template.Spec)
		slices.SortFunc(container.VolumeMounts, func(a, b corev1.VolumeMount) int { return strings.Compare(a.Name, b.Name) })
	}
	requireSame(t, one, other)
	requireSame(t, only[*corev1.ServiceAccount](t, byKustomize), only[*corev1.ServiceAccount](t, byHelm))
}

// longLived matches what a credential that does not end by itself looks like, or what holds one.
var longLived = regexp.MustCompile(`hv[sb]\.[\w-]{20}|PRIVATE KEY|secret_id|role_id|[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}`)

// credentialsIn returns what a rendered manifest has that is a credential for longer than an hour,
// or may be one.
func credentialsIn(objects []runtime.Object, text string) []string {
	found := longLived.FindAllString(text, -1)
	for _, object := range objects {
		if _, isSecret := object.(*corev1.Secret); isSecret {
			found = append(found, "a Secret")
		}
		if template := podTemplate(object); template != nil {
			found = append(found, credentialsOfPod(&template.Spec)...)
		}
	}
	return found
}

func credentialsOfPod(pod *corev1.PodSpec) []string {
	var found []string
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		found = append(found, "the token for Kubernetes' own API")
	}
	for _, v := range pod.Volumes {
		if v.Secret != nil || v.CSI != nil || v.HostPath != nil {
			found = append(found, "volume "+v.Name)
		}
		if v.Projected != nil {
			found = append(found, longLivedSources(v.Projected.Sources)...)
		}
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil {
				found = append(found, "the variables of a Secret")
			}
		}
		for _, variable := range c.Env {
			if variable.ValueFrom != nil && variable.ValueFrom.SecretKeyRef != nil {
				found = append(found, "variable "+variable.Name)
			}
		}
	}
	return found
}

func longLivedSources(sources []corev1.VolumeProjection) []string {
	var found []string
	for _, source := range sources {
		token := source.ServiceAccountToken
		switch {
		case source.Secret != nil:
			found = append(found, "a projected Secret")
		case token == nil:
		case token.Audience == "":
			found = append(found, "a token for Kubernetes' own API")
		case token.ExpirationSeconds == nil || *token.ExpirationSeconds > 3600:
			found = append(found, "a token that lives long")
		}
	}
	return found
}

func TestAPodWithItsOwnIdentityHoldsNoLongLivedCredential(t *testing.T) {
	t.Parallel()
	for name, text := range map[string][]byte{"by Kustomize": example(t, ownIdentityExample), "by Helm": helmOwnIdentity(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := mustDecode(t, text)
			if found := credentialsIn(objects, string(text)); len(found) > 0 {
				t.Errorf("there is %q", found)
			}
			pod := workload(t, objects).Spec
			token := volume(&pod, tokenVolume).Projected.Sources[0].ServiceAccountToken
			if account := only[*corev1.ServiceAccount](t, objects); token.Audience != "vault" || pod.ServiceAccountName != account.Name {
				t.Errorf("audience %q, service account %q of the pod, and %q", token.Audience, pod.ServiceAccountName, account.Name)
			}
		})
	}
}

func TestALongLivedCredentialIsFound(t *testing.T) {
	t.Parallel()
	if text := example(t, "worker/overlay"); len(credentialsIn(mustDecode(t, text), string(text))) < 2 {
		t.Error("an AppRole's Secret and its files count as none")
	}
	for name, spoil := range map[string]func(*corev1.PodSpec){
		"a variable": func(pod *corev1.PodSpec) {
			from := &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "k"}}
			pod.Containers[0].Env = append(pod.Containers[0].Env, corev1.EnvVar{Name: "X", ValueFrom: from})
		},
		"all variables": func(pod *corev1.PodSpec) {
			pod.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{}}}
		},
		"the automatic token": func(pod *corev1.PodSpec) { pod.AutomountServiceAccountToken = nil },
		"a projected Secret": func(pod *corev1.PodSpec) {
			volume(pod, tokenVolume).Projected.Sources[0] = corev1.VolumeProjection{Secret: &corev1.SecretProjection{}}
		},
		"a token of a day": func(pod *corev1.PodSpec) {
			*volume(pod, tokenVolume).Projected.Sources[0].ServiceAccountToken.ExpirationSeconds = 86400
		},
		"a token for anybody": func(pod *corev1.PodSpec) {
			volume(pod, tokenVolume).Projected.Sources[0].ServiceAccountToken.Audience = ""
		},
		"a volume of a driver": func(pod *corev1.PodSpec) {
			pod.Volumes = append(pod.Volumes, corev1.Volume{Name: "x", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}})
		},
	} {
		pod := workload(t, mustDecode(t, example(t, ownIdentityExample))).Spec
		spoil(&pod)
		if found := credentialsOfPod(&pod); len(found) != 1 {
			t.Errorf("%s: found %q", name, found)
		}
	}
}

func TestTheChartRefusesTwoWaysToLogIn(t *testing.T) {
	t.Parallel()
	chart := filepath.Join(helmCharts(t), "worker")
	requireHelmSays(t, "are two ways to log in", "template", "worker", chart, "--set", "secret-sidecar.ownIdentity.audience=vault,secret-sidecar.approleSecret=x")
	requireHelmSays(t, "expirationSeconds", "template", "worker", chart, "--set", "secret-sidecar.ownIdentity.expirationSeconds=60")
}

func TestTerraformMakesTheKubernetesRoleOfTheCommands(t *testing.T) {
	t.Parallel()
	module := readTerraformModule(t, "terraform-kubernetes")
	command := firstMatch(t, `vault write auth/(\S+)/role/(\S+) (bound_service_account_names.*)`, vaultPage(t))
	role := module.resource(t, "vault_kubernetes_auth_backend_role")
	if mount, name := module.value(t, role, "backend").AsString(), module.value(t, role, "role_name").AsString(); mount != command[1] || name != command[2] {
		t.Errorf("Terraform's role is %s at %s, the commands' %s at %s", name, mount, command[2], command[1])
	}
	compared := 0
	for _, parameter := range strings.Fields(command[3]) {
		name, want, _ := strings.Cut(parameter, "=")
		if name == "token_policies" { // Terraform names the policy by its resource
			continue
		}
		var got string
		value := module.value(t, role, name)
		switch {
		case strings.HasPrefix(name, "bound_"):
			got = value.AsValueSlice()[0].AsString()
		case name == "audience":
			got = value.AsString()
		default:
			number, _ := value.AsBigFloat().Int64()
			got, want = strconv.FormatInt(number, 10), strconv.FormatInt(seconds(t, want), 10)
		}
		if got != want {
			t.Errorf("%s is %s in Terraform, and %s by the commands", name, got, want)
		}
		compared++
	}
	if compared != 6 {
		t.Errorf("%d parameters were compared", compared)
	}
	policy := policyRules(t, module.value(t, module.resource(t, "vault_policy"), "policy").AsString())
	want := policyRules(t, firstMatch(t, "(?s)```hcl\n(.*?)```", vaultPage(t))[1])
	delete(want, "auth/approle/role/flow-worker/secret-id/lookup") // there is no secret_id
	if !maps.Equal(policy, want) {
		t.Errorf("Terraform's policy is %v, the commands' %v", policy, want)
	}
}
