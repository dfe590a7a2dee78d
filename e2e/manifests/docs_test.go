package manifests_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// reader follows docs/kubernetes.md and its further pages in a directory that holds what the page
// says there is.
type reader struct {
	directory string
	secret    string           // that the page has made
	applied   []runtime.Object // by the last `kubectl apply -k`
}

// workerOfTheReader is the Deployment that the page takes for granted.
const workerOfTheReader = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      initContainers:
        - {name: first, image: worker, securityContext: &restricted {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
        - {name: migrate, image: worker, securityContext: *restricted}
      containers:
        - {name: flows, image: worker, securityContext: *restricted}
        - {name: helper, image: helper, securityContext: *restricted}
`

// credentials are the files that docs/vault.md makes, and that the page takes.
var credentials = []string{"role_id", "secret_id"}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{directory: t.TempDir()}
	if err := os.CopyFS(filepath.Join(r.directory, "secret-sidecar", "deploy"),
		os.DirFS(deploy)); err != nil {
		t.Fatal(err)
	}
	r.write(t, "base/worker.yaml", workerOfTheReader)
	r.makeCredentials(t)
	return r
}

func (r *reader) makeCredentials(t *testing.T) {
	t.Helper()
	for _, credential := range credentials {
		r.write(t, credential, credential+" of the documents")
	}
}

func (r *reader) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(r.directory, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// knowingly lists what a directory of the page breaks on purpose, by a part of the complaint.
var knowingly = map[string]string{"wait-for-login": "the startup probe runs"}

// judgedElsewhere holds the directories that are not pods with a sidecar: they have tests of their
// own.
const judgedElsewhere = "examples/node-wide/"

var (
	fenced    = regexp.MustCompile("(?s)```(\\w+)\n(.*?)```\n")
	fileTitle = regexp.MustCompile(`^# (\S+\.yaml)\n`)
)

func TestEveryCommandOfTheKubernetesPageWorks(t *testing.T) {
	t.Parallel()
	page := kubernetesPage(t)
	r, commands := newReader(t), 0
	for _, block := range fenced.FindAllStringSubmatch(page, -1) {
		switch block[1] {
		case "yaml":
			title := fileTitle.FindStringSubmatch(block[2])
			if title == nil {
				t.Fatalf("a file without a name:\n%s", block[2])
			}
			r.write(t, title[1], block[2])
		case "sh":
			for line := range strings.Lines(strings.ReplaceAll(block[2], "\\\n", " ")) {
				r.command(t, strings.Fields(line))
				commands++
			}
		default:
			t.Errorf("a block that no test knows: %s", block[1])
		}
	}
	if commands == 0 {
		t.Error("the page has no command")
	}
}

// writeFiles writes every file that a text shows.
func (r *reader) writeFiles(t *testing.T, text string) {
	t.Helper()
	for _, block := range fenced.FindAllStringSubmatch(text, -1) {
		if title := fileTitle.FindStringSubmatch(block[2]); title != nil {
			r.write(t, title[1], block[2])
		}
	}
}

// The page leans on docs/vault.md for the files of step 1, and ends with the proof: a secret, read.
func TestTheFirstFiveMinutesStartWithCredentialsAndEndWithASecret(t *testing.T) {
	t.Parallel()
	steps := section(t, kubernetesPage(t), "In five minutes")
	vault, err := os.ReadFile("../../docs/vault.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\(vault\.md#([\w-]+)\)`).FindStringSubmatch(steps)
	if link == nil {
		t.Fatal("no link says where the credentials come from")
	}
	made := section(t, string(vault), strings.ReplaceAll(link[1], "-", " "))
	for _, credential := range credentials {
		if !strings.Contains(made, "> "+credential) {
			t.Errorf("vault.md#%s makes no %s", link[1], credential)
		}
	}
	if private, create := strings.Index(steps, "`umask 077`"),
		strings.Index(steps, "create secret"); private < 0 || private > create {
		t.Error("whoever is on the machine may read the secret_id")
	}
	read := regexp.MustCompile(
		`connections test prod --path (\w+)/data/(\w+)/(\w+)\n`).FindStringSubmatch(steps)
	if read == nil {
		t.Fatal("no step reads a secret")
	}
	if put := "kv put -mount=" + read[1] + " " + read[2] + " " + read[3] +
		"="; !strings.Contains(made, put) {
		t.Errorf("vault.md#%s puts no such secret: %s", link[1], put)
	}
}

// section is the part of a page under a heading of the second level.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	for _, each := range strings.Split(page, "\n## ") {
		title, text, _ := strings.Cut(each, "\n")
		if strings.EqualFold(title, heading) {
			return text
		}
	}
	t.Fatalf("there is no heading %q", heading)
	return ""
}

// command runs a command as far as it needs no cluster, and checks what it names against what was
// applied.
func (r *reader) command(t *testing.T, words []string) {
	t.Helper()
	line := strings.Join(words, " ")
	switch {
	case strings.HasPrefix(line, "kubectl kustomize "):
		r.render(t, words[2])
	case strings.HasPrefix(line, "kubectl apply -k "):
		r.applied = r.render(t, words[3])
		r.requireMounted(t, r.applied)
	case strings.HasPrefix(line, "helm upgrade --install "):
		r.helm(t, append([]string{"template"}, words[3:]...))
	case strings.HasPrefix(line, "helm "):
		r.helm(t, words[1:])
	case strings.HasPrefix(line, "kubectl -n flows create secret generic "):
		r.makeCredentials(t) // each worker has its own
		create, after, _ := strings.Cut(line, " && ")
		r.createSecret(t, words[6], strings.Fields(create)[7:])
		r.remove(t, after)
	case strings.HasPrefix(line, "kubectl -n flows "):
		r.onCluster(t, words[3:])
	default:
		t.Errorf("a command that no test can run: %s", line)
	}
}

func (r *reader) render(t *testing.T, directory string) []runtime.Object {
	t.Helper()
	objects := mustDecode(t, kustomize(t, filepath.Join(r.directory, directory)))
	if strings.Contains(directory, judgedElsewhere) {
		return objects
	}
	excused, some := knowingly[directory]
	for _, complaint := range judge(t, objects) {
		if !some || !strings.Contains(complaint, excused) {
			t.Errorf("%s: %s", directory, complaint)
		}
	}
	return objects
}

func (r *reader) helm(t *testing.T, arguments []string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), tool(t, "HELM"), arguments...)
	command.Dir = r.directory
	out, err := command.Output()
	if err != nil {
		t.Fatalf("helm %q: %v", arguments, err)
	}
	if arguments[0] != "template" {
		return
	}
	objects := mustDecode(t, out)
	for _, complaint := range judge(t, objects) {
		t.Errorf("helm %q: %s", arguments, complaint)
	}
	r.requireMounted(t, objects)
}

// createSecret notes the Secret, whose files have to be there.
func (r *reader) createSecret(t *testing.T, called string, arguments []string) {
	t.Helper()
	r.secret = called
	for _, argument := range arguments {
		file, ok := strings.CutPrefix(argument, "--from-file=")
		if _, err := os.Stat(filepath.Join(r.directory, file)); !ok || err != nil {
			t.Errorf("%s: %v", argument, err)
		}
	}
}

// The page's patch gives the socket to every container that it names with it, and leaves all
// containers in their order.
func TestThePatchOfThePageReachesInitContainersAndOthers(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	r.writeFiles(t, kubernetesPage(t))
	pod := &workload(t, r.render(t, "patches")).Spec
	want := corev1.EnvVar{Name: socketVariable, Value: "/run/secret-sidecar/sidecar.sock"}
	var order []string
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		order = append(order, c.Name)
	}
	if want := []string{name, "first", "migrate", "flows", "helper"}; !slices.Equal(order, want) {
		t.Errorf("the containers are %q, not %q", order, want)
	}
	for _, c := range others(pod) {
		if c.Name == "first" { // it does not ask
			continue
		}
		if m := mount(&c, socketVolume); m.MountPath != "/run/secret-sidecar" || !m.ReadOnly ||
			!slices.Contains(c.Env, want) {
			t.Errorf("%s cannot ask: mounts %v, variables %v", c.Name, c.VolumeMounts, c.Env)
		}
	}
}

// requireMounted checks that a pod mounts the Secret and the ConfigMap that the page makes, and
// fits them.
func (r *reader) requireMounted(t *testing.T, objects []runtime.Object) {
	t.Helper()
	pod := &only[*appsv1.Deployment](t, objects).Spec.Template.Spec
	if mounted := volume(pod, approleVolume).Secret.SecretName; r.secret != mounted {
		t.Errorf("the page makes a Secret %s, the pod mounts %s", r.secret, mounted)
	}
	made := only[*corev1.ConfigMap](t, objects)
	if mounted := volume(pod, configVolume).ConfigMap.Name; made.Name != mounted {
		t.Errorf("the page makes a ConfigMap %s, the pod mounts %s", made.Name, mounted)
	}
	requireFits(t, load(t, made.Data["config.yaml"]), pod)
}

// remove runs a rm, and checks that it leaves nothing of the credentials behind.
func (r *reader) remove(t *testing.T, command string) {
	t.Helper()
	files, ok := strings.CutPrefix(command, "rm ")
	if !ok {
		t.Errorf("%q does not remove the credentials", command)
	}
	for _, file := range strings.Fields(files) {
		if err := os.Remove(filepath.Join(r.directory, file)); err != nil {
			t.Error(err)
		}
	}
	for _, credential := range credentials {
		if _, err := os.Stat(filepath.Join(r.directory, credential)); err == nil {
			t.Errorf("the page leaves %s lying about", credential)
		}
	}
}

// onCluster checks a command that needs a cluster: the Deployment and the container that it names
// are there, and what it runs in the container is a command of the sidecar's.
func (r *reader) onCluster(t *testing.T, words []string) {
	t.Helper()
	worker := only[*appsv1.Deployment](t, r.applied)
	if !slices.Contains(words, "deployment/"+worker.Name) || worker.Namespace != "flows" {
		t.Errorf("%q names no Deployment that was applied", words)
	}
	if at := slices.Index(words, "-c"); at >= 0 &&
		sidecar(&worker.Spec.Template.Spec).Name != words[at+1] {
		t.Errorf("there is no container %s", words[at+1])
	}
	if at := slices.Index(words, "--"); at >= 0 {
		if words[at+1] != "/secret-sidecar" {
			t.Errorf("the image holds no %s", words[at+1])
		}
		if err := knows(t, words[at+2:]); err != nil {
			t.Error(err)
		}
	}
}

func TestThePatchForMetricsKeepsTheVariablesThatAreThere(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	r.writeFiles(t, strings.ReplaceAll(kubernetesPage(t), "- ../overlay", "- ../proxied"))
	r.write(t, "proxied/kustomization.yaml", `resources: [../overlay]
patches:
  - target: {kind: Deployment}
    patch: |-
      - {op: add, path: /spec/template/spec/initContainers/0/env, value: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]}
`)
	pod := &workload(t, r.render(t, "metrics")).Spec
	for _, want := range []string{"HTTPS_PROXY", "OTEL_METRICS_EXPORTER"} {
		if !slices.ContainsFunc(sidecar(pod).Env, func(v corev1.EnvVar) bool {
			return v.Name == want
		}) {
			t.Errorf("the sidecar has no %s: %v", want, sidecar(pod).Env)
		}
	}
	if first := pod.InitContainers[0].Name; first != name {
		t.Errorf("%s is the first init container", first)
	}
}

// Patches by index know nothing of a sidecar that comes before their own containers and volumes.
func TestAnOverlayWithPatchesByIndexIsListedUnderResources(t *testing.T) {
	t.Parallel()
	if said := "An overlay that you have already goes under `resources`"; !strings.Contains(
		section(t, kubernetesPage(t), "In five minutes"), said) {
		t.Errorf("the page does not say %q", said)
	}
	const patches = `patches:
  - target: {kind: Deployment}
    patch: |-
      - {op: replace, path: /spec/template/spec/volumes/0/emptyDir, value: {sizeLimit: 5Gi}}
      - {op: replace, path: /spec/template/spec/initContainers/0/image, value: migrate:v2}
`
	mine := map[string]string{
		"mine/app.yaml": fmt.Sprintf(workloads["Deployment"], "{initContainers: [{name: migrate, image: migrate}], "+
			"containers: [{name: app, image: app}], volumes: [{name: mine, emptyDir: {}}]}"),
	}
	for name, test := range map[string]struct {
		mine, turned string
		hit          bool
	}{
		"under resources":    {patches, "resources: [../mine]\ncomponents: [../../kubernetes/component]\n", false},
		"beside the patches": {"", "resources: [../mine]\ncomponents: [../../kubernetes/component]\n" + patches, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := maps.Clone(mine)
			files["mine/kustomization.yaml"] = "resources: [app.yaml]\n" + test.mine
			files["turned/kustomization.yaml"] = test.turned
			pod := &workload(t, mustDecode(t, kustomize(t, overlay(t, files)+"/turned"))).Spec
			if hit := sidecar(pod).Image == "migrate:v2"; hit != test.hit {
				t.Errorf("the patch by index hits the image %s", sidecar(pod).Image)
			}
			if complaints := breaches(pod); !test.hit && len(complaints) > 0 {
				t.Errorf("the sidecar is not as it should be: %q", complaints)
			}
		})
	}
}
