package config

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// credential reads key, key_file or key_env, of which at most one may be set.
func (r *reader) credential(m mapping, key string) login.Credential {
	literal, file, env := m.at(key), m.at(key+"_file"), m.at(key+"_env")
	var found []value
	for _, v := range []value{literal, file, env} {
		if v.present() {
			found = append(found, v)
		}
	}
	for _, extra := range found[min(1, len(found)):] {
		extra.mistake("only one of %[1]s, %[1]s_file and %[1]s_env may be given: there is one on "+
			"line %d", key, found[0].origin().Line)
	}
	switch {
	case file.present():
		return login.Credential{File: r.file(file)}
	case env.present():
		return login.Credential{Value: r.credentialFromEnv(env, key)}
	}
	return login.Credential{Value: r.literalCredential(literal, key)}
}

var (
	template  = regexp.MustCompile(`^(\$[A-Z_][A-Z0-9_]*|\$\{.*\}|\$\(.*\)|\{\{.*\}\})$`)
	vaultPath = regexp.MustCompile(`(^auth/)|(/data/)`)
	howToGet  = map[string]string{ // #nosec G101 -- commands
		"role_id":   "vault read -field=role_id auth/approle/role/NAME/role-id",
		"secret_id": "vault write -f -field=secret_id auth/approle/role/NAME/secret-id",
	}
)

func (r *reader) literalCredential(v value, key string) redact.String {
	if !v.present() {
		return redact.String{}
	}
	text, ok := v.rawText()
	if !ok {
		return redact.String{}
	}
	credential, problem := literal(text, key+"_file")
	switch plain := credential.Reveal(); {
	case problem != "":
		v.mistake("%s", problem)
	case template.MatchString(plain):
		v.mistake("holds a variable, and none is replaced in this file: use %s_env", key)
	case vaultPath.MatchString(plain):
		v.mistake("holds a path in Vault: give what Vault says there, %s", howToGet[key])
	case r.isFile(credential.Reveal()):
		v.mistake("is the name of a file: use %s_file", key)
	}
	return credential
}

// credentialFromEnv never quotes the variable's name: a credential may stand there by mistake.
func (r *reader) credentialFromEnv(v value, key string) redact.String {
	name := v.filledText()
	if name == "" {
		return redact.String{}
	}
	text, set := r.getenv(name)
	switch {
	case !set && template.MatchString(name):
		v.mistake("write the variable's name alone, without $ and braces")
		return redact.String{}
	case !set:
		v.mistake("the environment variable that it names is not set")
		return redact.String{}
	}
	credential, problem := literal(text, key+"_file")
	if problem != "" {
		v.mistake("the environment variable that it names: %s", problem)
	}
	return credential
}

// literal returns the credential in a text, or what is wrong with it. fileSetting is the key where
// a file's name belongs.
func literal(text, fileSetting string) (credential redact.String, problem string) {
	if text == "" {
		return credential, "is empty: give it a value, or remove the key"
	}
	credential, err := login.Credential{Value: redact.New(text)}.Read(fileSetting)
	if errors.Is(err, login.ErrPath) {
		return credential, "holds a path: use " + fileSetting
	}
	return credential, credentialProblem(err)
}

// credentialProblem is login's error without the setting and the file, which a Mistake has already.
func credentialProblem(err error) string {
	wrong, ok := errors.AsType[*login.CredentialError](err)
	if !ok {
		return ""
	}
	return wrong.Problem + ": " + wrong.Remedy
}

// isFile reports whether a text names a file, as a name in the configuration would.
func (r *reader) isFile(name string) bool {
	if name == "" {
		return false
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(r.directory, name)
	}
	info, err := os.Stat(name) // #nosec G304 -- only looked at
	return err == nil && info.Mode().IsRegular()
}

// checkCredentials reports what is missing, and what contradicts bind_secret_id.
func (m mapping) checkCredentials(wrapped bool) {
	if !m.anyMeant("role_id", "role_id_file", "role_id_env") {
		m.at("role_id").mistake("is missing: give role_id, role_id_file or role_id_env")
	}
	bound := m.at("bind_secret_id").boolean(true)
	given := m.anyMeant("secret_id", "secret_id_file", "secret_id_env")
	switch {
	case bound && !given:
		m.at("secret_id").mistake("is missing: give secret_id, secret_id_file or secret_id_env; " +
			"or bind_secret_id: false when the role has none")
	case !bound && given:
		m.at("bind_secret_id").mistake(
			"says that the role has no secret_id, and there is one: remove one of the two")
	case !bound && wrapped:
		m.at("secret_id_wrapped").mistake(
			"there is no secret_id to unwrap: remove it, or give a secret_id and remove " +
				"bind_secret_id")
	}
}

// anyMeant reports whether one of the keys is set, or a misspelling of one, which is reported
// already.
func (m mapping) anyMeant(keys ...string) bool {
	return slices.ContainsFunc(keys, func(key string) bool {
		return m.at(key).present() || m.meant[key]
	})
}
