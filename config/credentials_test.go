package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
)

// cannotBeRight are texts that Vault would reject as a credential, and what is said of them. YAML
// keeps some of them from being a literal.
var cannotBeRight = map[string]struct{ text, want string }{
	"two lines":           {"hush\nhush\n", "holds several lines: "},
	"UTF-16":              {"\xff\xfeh\x00u\x00", "looks like UTF-16: save it as UTF-8"},
	"100 KiB":             {strings.Repeat("x", 100<<10), "holds more than 4096 bytes: "},
	"blanks":              {" \n\u00a0\ufeff\r\n", "is empty: "},
	"a control character": {"hush\x01", "holds a control character: "},
	"Latin-1":             {"hush\xe9", "is not UTF-8: save it as UTF-8"},
}

func TestAFileThatCannotHoldACredentialIsAMistakeAtItsPlace(t *testing.T) {
	for name, test := range cannotBeRight {
		for _, key := range []string{"role_id_file", "secret_id_file"} {
			text := with("secret_id_file: credential")
			if key == "role_id_file" {
				text = strings.Replace(minimal, "role_id: role", "role_id_file: credential", 1)
			}
			path := write(t, text)
			if err := writeFile(filepath.Join(filepath.Dir(path), "credential"),
				test.text); err != nil {
				t.Fatal(err)
			}
			_, err := config.Check(path, noEnv)
			if err == nil || !strings.Contains(err.Error(),
				"connections[0]."+key+": the file "+test.want) ||
				strings.Contains(err.Error(), "hush") {
				t.Errorf("%s, %s: %v", name, key, err)
			}
		}
	}
}

func TestAVariableThatCannotHoldACredentialIsAMistake(t *testing.T) {
	for name, test := range cannotBeRight {
		for key, text := range map[string]string{
			"secret_id_env": with("secret_id_env: V"), "role_id_env": strings.Replace(minimal, "role_id: role", "role_id_env: V", 1),
		} {
			_, err := config.Load(write(t, text), env(map[string]string{"V": test.text}))
			if err == nil || !strings.Contains(err.Error(),
				"connections[0]."+key+": the environment variable that it names: "+test.want) ||
				strings.Contains(err.Error(), "hush") {
				t.Errorf("%s, %s: %v", name, key, err)
			}
		}
		for _, name := range []string{"VAULT_ROLE_ID", "VAULT_SECRET_ID"} {
			variables := map[string]string{"VAULT_ADDR": "http://v", "VAULT_ROLE_ID": "r",
				"VAULT_SECRET_ID": "s"}
			variables[name] = test.text
			_, err := config.FromEnv(env(variables))
			if err == nil || !strings.HasPrefix(err.Error(), name+": "+test.want) ||
				strings.Contains(err.Error(), "hush") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestALiteralThatCannotBeRightIsAMistakeAtItsPlace(t *testing.T) {
	for literal, want := range map[string]string{
		`"hush\nhush"`: "holds several lines: ", `" "`: "is empty: ", `"hush\x01"`: "holds a control character: ",
		strings.Repeat("x", 4097): "holds more than 4096 bytes: ",
		"/run/secrets/hush":       "holds a path: use secret_id_file", "./hush": "holds a path: use secret_id_file",
		"the-file": "is the name of a file: use secret_id_file",
	} {
		path := write(t, with("secret_id: "+literal))
		if err := writeFile(filepath.Join(filepath.Dir(path), "the-file"), "s"); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(path, noEnv)
		if err == nil || !strings.HasPrefix(err.Error(),
			path+":6:16: connections[0].secret_id: "+want) ||
			strings.Contains(err.Error(), "hush") {
			t.Errorf("%.20s: %v", literal, err)
		}
	}
	for name, want := range map[string]string{"VAULT_ROLE_ID": "holds a path: use " +
		"VAULT_ROLE_ID_FILE", "VAULT_SECRET_ID": "holds a path: use VAULT_SECRET_ID_FILE"} {
		variables := map[string]string{"VAULT_ADDR": "http://v", "VAULT_ROLE_ID": "r",
			"VAULT_SECRET_ID": "s"}
		variables[name] = "/run/secrets/hush"
		if _, err := config.FromEnv(env(variables)); err == nil || err.Error() != name+": "+want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBlankSpaceAndAByteOrderMarkAroundACredentialDoNotCount(t *testing.T) {
	path := write(t, strings.NewReplacer("role_id: role", `role_id: " role\n"`, "secret_id: secret",
		"secret_id_env: V").Replace(minimal))
	cfg, err := config.Load(path, env(map[string]string{"V": "\ufeffsecret \r\n"}))
	if err != nil {
		t.Fatal(err)
	}
	if c := cfg.Connections[0]; c.Vault.RoleID.Value.Reveal() != "role" ||
		c.Vault.SecretID.Value.Reveal() != "secret" {
		t.Errorf("role_id %q, secret_id %q", c.Vault.RoleID.Value.Reveal(),
			c.Vault.SecretID.Value.Reveal())
	}
	path = write(t, with("secret_id_file: credential"))
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "credential"),
		[]byte("\ufeff secret\r\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Check(path, noEnv); err != nil {
		t.Error(err)
	}
}

func TestARoleWithoutASecretIDIsAskedForByName(t *testing.T) {
	const missing = "is missing: give secret_id, secret_id_file or secret_id_env; or " +
		"bind_secret_id: false when the role has none"
	for name, test := range map[string]struct{ text, want string }{
		"no source":            {strings.Replace(minimal, "    secret_id: secret\n", "", 1), "2:5: connections[0].secret_id: " + missing},
		"bind_secret_id: true": {with("bind_secret_id: true"), "2:5: connections[0].secret_id: " + missing},
		"a wrapped one that is not there": {with("bind_secret_id: true", "required: true", "timeout: 1s") + "    secret_id_wrapped: true\n",
			"2:5: connections[0].secret_id: " + missing},
		"both":   {with("bind_secret_id: false", "secret_id: x"), "6:21: connections[0].bind_secret_id: says that the role has no secret_id, and there is one"},
		"a file": {with("bind_secret_id: false", "secret_id_file: x"), "6:21: connections[0].bind_secret_id: says that"},
		"a text": {with(`bind_secret_id: "no"`, "secret_id: x"), "6:21: connections[0].bind_secret_id: want true or false"},
	} {
		if got := mistakesOf(t, test.text); len(got) != 1 || !strings.HasPrefix(got[0], test.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	cfg := load(t, with("bind_secret_id: false"))
	if c := cfg.Connections[0]; !c.Vault.SecretID.IsZero() || c.Vault.RoleID.IsZero() {
		t.Errorf("connection %+v", c)
	}
}
