package manifests_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// terraformModule is deploy/vault/terraform with its variables at their defaults.
type terraformModule struct {
	blocks hclsyntax.Blocks
	values *hcl.EvalContext
}

func readTerraform(t *testing.T) *terraformModule {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(deploy, "vault", "terraform", "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no Terraform files: %v", err)
	}
	module, parser := &terraformModule{}, hclparse.NewParser()
	for _, name := range files {
		file, problems := parser.ParseHCLFile(name)
		if problems.HasErrors() {
			t.Fatal(problems)
		}
		module.blocks = append(module.blocks, file.Body.(*hclsyntax.Body).Blocks...)
	}
	// as the page's policy has it
	variables := map[string]cty.Value{"secret_paths": cty.ListVal([]cty.Value{cty.StringVal("*")})}
	for _, block := range module.blocks {
		if _, given := variables[label(block)]; block.Type == "variable" && !given {
			variables[label(block)] = module.value(t, block, "default")
		}
	}
	module.values = &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(
		variables)}}
	return module
}

func label(block *hclsyntax.Block) string { return strings.Join(block.Labels, ".") }

// value evaluates an attribute of a block.
func (m *terraformModule) value(t *testing.T, block *hclsyntax.Block, attribute string) cty.Value {
	t.Helper()
	found := block.Body.Attributes[attribute]
	if found == nil {
		t.Fatalf("%s %q has no %s", block.Type, block.Labels, attribute)
	}
	value, problems := found.Expr.Value(m.values)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	return value
}

func (m *terraformModule) resource(t *testing.T, kind string) *hclsyntax.Block {
	t.Helper()
	at := slices.IndexFunc(m.blocks, func(b *hclsyntax.Block) bool {
		return b.Type == "resource" && b.Labels[0] == kind
	})
	if at < 0 {
		t.Fatalf("there is no resource %s", kind)
	}
	return m.blocks[at]
}

// vaultPage is docs/vault.md.
func vaultPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/vault.md")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "\\\n", " ")
}

func firstMatch(t *testing.T, pattern, text string) []string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("docs/vault.md has nothing like %s", pattern)
	}
	return found
}

// policyRules is a policy without its comments and layout: capabilities by path.
func policyRules(t *testing.T, text string) map[string]string {
	t.Helper()
	file, problems := hclsyntax.ParseConfig([]byte(text), "policy.hcl", hcl.InitialPos)
	if problems.HasErrors() {
		t.Fatalf("%v in\n%s", problems, text)
	}
	rules := map[string]string{}
	for _, block := range file.Body.(*hclsyntax.Body).Blocks {
		capabilities, problems := block.Body.Attributes["capabilities"].Expr.Value(nil)
		if problems.HasErrors() || block.Type != "path" {
			t.Fatalf("%s: %v", block.Type, problems)
		}
		var all []string
		for _, each := range capabilities.AsValueSlice() {
			all = append(all, each.AsString())
		}
		rules[block.Labels[0]] = strings.Join(all, " ")
	}
	return rules
}

func TestTerraformWritesThePolicyOfTheCommands(t *testing.T) {
	t.Parallel()
	module := readTerraform(t)
	policy := module.resource(t, "vault_policy")
	want := policyRules(t, firstMatch(t, "(?s)```hcl\n(.*?)```", vaultPage(t))[1])
	if got := policyRules(t, module.value(t, policy, "policy").AsString()); !maps.Equal(got,
		want) || len(want) == 0 {
		t.Errorf("Terraform's policy is %v, the commands' %v", got, want)
	}
	if got, want := module.value(t, policy, "name").AsString(),
		firstMatch(t, `vault policy write (\S+)`, vaultPage(t))[1]; got != want {
		t.Errorf("Terraform's policy is called %q, the commands' %q", got, want)
	}
}

func TestTerraformGivesAPolicyForEveryPathThatItIsGiven(t *testing.T) {
	t.Parallel()
	module := readTerraform(t)
	variables := module.values.Variables["var"].AsValueMap()
	variables["kv_mount"] = cty.StringVal("team/kv")
	variables["secret_paths"] = cty.ListVal([]cty.Value{cty.StringVal("a/*"), cty.StringVal("b")})
	module.values.Variables["var"] = cty.ObjectVal(variables)
	want := map[string]string{
		"team/kv/data/a/*": "read", "team/kv/data/b": "read", "sys/mounts": "read",
		"auth/approle/role/flow-worker/secret-id/lookup": "update",
	}
	if got := policyRules(t, module.value(t, module.resource(t, "vault_policy"),
		"policy").AsString()); !maps.Equal(got, want) {
		t.Errorf("the policy is %v, want %v", got, want)
	}
}

func TestTerraformMakesTheRoleOfTheCommands(t *testing.T) {
	t.Parallel()
	module := readTerraform(t)
	command := firstMatch(t, `vault write auth/(\S+)/role/(\S+) (token_policies.*)`, vaultPage(t))
	role := module.resource(t, "vault_approle_auth_backend_role")
	if name := module.value(t, role, "role_name").AsString(); name != command[2] {
		t.Errorf("Terraform's role is %q, the commands' %q", name, command[2])
	}
	if mount := module.values.Variables["var"].GetAttr("approle_mount").AsString(); mount != command[1] {
		t.Errorf("Terraform's role is at %q, the commands' at %q", mount, command[1])
	}
	compared := 0
	for _, parameter := range strings.Fields(command[3]) {
		name, text, _ := strings.Cut(parameter, "=")
		if name == "token_policies" { // Terraform names the policy by its resource
			continue
		}
		want := seconds(t, text)
		if got, _ := module.value(t, role, name).AsBigFloat().Int64(); got != want {
			t.Errorf("%s is %d in Terraform, and %s by the commands", name, got, text)
		}
		compared++
	}
	if compared != 5 {
		t.Errorf("%d parameters were compared", compared)
	}
}

// seconds reads a parameter of the commands: a number, or a duration, which Terraform writes in
// seconds.
func seconds(t *testing.T, text string) int64 {
	t.Helper()
	if number, err := strconv.ParseInt(text, 10, 64); err == nil {
		return number
	}
	duration, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return int64(duration / time.Second)
}

func TestTerraformMakesTheMountOfTheCommands(t *testing.T) {
	t.Parallel()
	module := readTerraform(t)
	command := firstMatch(t, `vault secrets enable -path=(\S+) -version=(\S+) (\S+)`, vaultPage(t))
	mount := module.resource(t, "vault_mount")
	got := []string{module.value(t, mount, "path").AsString(),
		module.value(t, mount, "options").GetAttr("version").AsString(),
		module.value(t, mount, "type").AsString()}
	if !slices.Equal(got, command[1:]) {
		t.Errorf("Terraform's mount is %q, the commands' %q", got, command[1:])
	}
}

func TestTerraformNeverDestroysSecretsOrTheRolesOfOthers(t *testing.T) {
	t.Parallel()
	module := readTerraform(t)
	for _, kind := range []string{"vault_mount", "vault_auth_backend"} {
		isKept := false
		for _, inner := range module.resource(t, kind).Body.Blocks {
			kept := inner.Body.Attributes["prevent_destroy"]
			isKept = isKept || inner.Type == "lifecycle" && kept != nil &&
				module.value(t, inner, "prevent_destroy").True()
		}
		if !isKept {
			t.Errorf("%s may be destroyed", kind)
		}
	}
}

func TestTerraformAsksWhichSecretsAWorkerMayRead(t *testing.T) {
	t.Parallel()
	for _, block := range readTerraform(t).blocks {
		if label(block) == "secret_paths" && block.Body.Attributes["default"] != nil {
			t.Error("there is a default")
		}
	}
}

// A reference to a variable or resource that is not there is Terraform's own error, and only at
// plan.
func TestTerraformRefersToWhatIsThere(t *testing.T) {
	t.Parallel()
	module := readTerraform(t)
	known := map[string]bool{}
	for _, block := range module.blocks {
		switch block.Type {
		case "variable":
			known["var."+block.Labels[0]] = true
		case "resource":
			known[strings.Join(block.Labels, ".")] = true
		}
	}
	used := map[string]bool{}
	for _, block := range module.blocks {
		if block.Type == "variable" { // whose type looks like a reference
			continue
		}
		for _, attribute := range block.Body.Attributes {
			for _, reference := range attribute.Expr.Variables() {
				if reference.RootName() != "count" {
					used[reference.RootName()+"."+reference[1].(hcl.TraverseAttr).Name] = true
				}
			}
		}
	}
	for name := range used {
		if !known[name] {
			t.Errorf("%s is not there", name)
		}
	}
	for name := range known {
		if strings.HasPrefix(name, "var.") && !used[name] {
			t.Errorf("%s is used nowhere", name)
		}
	}
}

func TestTerraformIsFormatted(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob(filepath.Join(deploy, "vault", "terraform", "*.tf"))
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if formatted := hclwrite.Format(text); !bytes.Equal(formatted, text) {
			t.Errorf("%s is not as terraform fmt leaves it", name)
		}
	}
}
