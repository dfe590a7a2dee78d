package vault

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestReferencesThatAreGood(t *testing.T) {
	for input, want := range map[[2]string]Reference{
		{"secret/data/mysec/api_key", ""}:    {"secret/data/mysec", "api_key"},
		{"team/a/kv/data/x/y/key", ""}:       {"team/a/kv/data/x/y", "key"},
		{"secret/data/data/key", ""}:         {"secret/data/data", "key"},
		{"data/data/x/key", ""}:              {"data/data/x", "key"},
		{"secret/data/x/%2e%2e/y", ""}:       {"secret/data/x/%2e%2e", "y"},
		{"secret/data/a b?c#d%e/k ü", ""}:    {"secret/data/a b?c#d%e", "k ü"},
		{"secret/data/mysec", "tls/key.pem"}: {"secret/data/mysec", "tls/key.pem"},
		{"secret/data/mysec", ".."}:          {"secret/data/mysec", ".."},
		{"secret/data/sys/key", ""}:          {"secret/data/sys", "key"},
		{"secret/data/.../key", ""}:          {"secret/data/...", "key"},
		{"sysadmin/data/x/key", ""}:          {"sysadmin/data/x", "key"},
		{"secret/data/x/data", ""}:           {"secret/data/x", "data"},
		{"secret/data/x/data/y", "some key"}: {"secret/data/x/data/y", "some key"},
	} {
		got, err := ParseReference(input[0], input[1])
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", input, got, err)
		}
	}
}

func TestReferencesThatAreRefused(t *testing.T) {
	long := strings.Repeat("x", 1024)
	for name, input := range map[string][2]string{
		"empty":               {"", ""},
		"too short":           {"secret/data/key", ""},
		"no data":             {"secret/mysec/api/key", ""},
		"data in front":       {"data/x/y/key", ""},
		"nothing behind data": {"secret/x/data/key", ""},
		"only a mount":        {"secret/data", "key"},
		"parent":              {"secret/data/../../sys/mounts", ""},
		"dot":                 {"secret/data/./x/key", ""},
		"key is parent":       {"secret/data/x/..", ""},
		"empty segment":       {"secret//data/x/key", ""},
		"leading slash":       {"/secret/data/x/key", ""},
		"trailing slash":      {"secret/data/x/key/", ""},
		"control character":   {"secret/data/x\n/key", ""},
		"NUL":                 {"secret/data/x\x00/key", ""},
		"delete":              {"secret/data/x\x7f/key", ""},
		"C1 control":          {"secret/data/x\u0085/key", ""},
		"control in the key":  {"secret/data/x", "a\tb"},
		"invalid UTF-8":       {"secret/data/x\xff/key", ""},
		"invalid UTF-8 key":   {"secret/data/x", "\xff"},
		"giant":               {"secret/data/" + long + "/key", ""},
		"giant key":           {"secret/data/x", long + "x"},
		"sys":                 {"sys/data/x/key", ""},
		"auth":                {"auth/data/x/key", ""},
		"identity":            {"identity/data/x/key", ""},
		"cubbyhole":           {"cubbyhole/data/x/key", ""},
	} {
		if ref, err := ParseReference(input[0], input[1]); !errors.Is(err, ErrInvalidReference) {
			t.Errorf("%s: %+v, %v", name, ref, err)
		}
	}
}

func TestARefusedReferenceNamesThePartThatIsMissing(t *testing.T) {
	const noData, noKey, noSecret = "there is no data segment after the mount",
		"the key is missing at the end",
		"the secret is missing after the data segment"
	for input, want := range map[[2]string]string{
		{"hush/mysec/api/key", ""}: noData,
		{"hush", ""}:               noData,
		{"hush/mysec", "key"}:      noData,
		{"data/hush/key", ""}:      noData,
		{"hush/data/mysec", ""}:    noKey,
		{"hush/kv/data/mysec", ""}: noKey,
		{"hush/data/data", ""}:     noKey,
		{"hush/data", ""}:          noSecret,
		{"hush/data", "key"}:       noSecret,
	} {
		_, err := ParseReference(input[0], input[1])
		if !errors.Is(err, ErrInvalidReference) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", input, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%q is quoted: %v", input, err)
		}
	}
}

func TestAReferenceInTheFormOfAnotherToolIsNamed(t *testing.T) {
	const v1, url, stored, hash = "it begins with v1/", "it is a URL",
		"it is a stored reference in {{ }}", "the key follows a slash, not #"
	for input, want := range map[[2]string]string{
		{"v1/hush/data/x/key", ""}:                     v1,
		{"/v1/hush/data/x/key", ""}:                    v1,
		{"v1/hush/data/x", "key"}:                      v1,
		{"v1/data/x/key", ""}:                          v1,
		{"v1", ""}:                                     v1,
		{"v1/", ""}:                                    v1,
		{"https://hush:8200/v1/secret/data/x/key", ""}: url,
		{"HTTP://hush/v1/secret/data/x/key", ""}:       url,
		{"vault://hush/data/x/key", ""}:                url,
		{"ref+vault://hush/data/x#/key", ""}:           url,
		{"https://hush/v1/secret/data/x", "key"}:       url,
		{"{{prod|ap_sep_v1|hush/data/x/key}}", ""}:     stored,
		{" {{prod|ap_sep_v1|hush/data/x/key}} ", ""}:   stored,
		{"{{prod|ap_sep_v1|hush/data/x}}", "key"}:      stored,
		{"{{ connections.hush }}", ""}:                 stored,
		{"{{hush/data/x/key}}", ""}:                    stored,
		{"{{hush/data/x/key", ""}:                      stored,
		{"hush#api_key", ""}:                           hash,
		{"secret/hush#api_key", ""}:                    hash,
		{"secret/data/hush#api_key", ""}:               hash,
		{"team/kv/data/hush#api_key", ""}:              hash,
		{"vault:secret/data/hush#KEY", ""}:             hash,
		{`secret\data\hush\key`, ""}:                   `write / between the segments, not \`,
		{"secret%2Fdata%2Fhush%2fkey", ""}:             "not percent-encoded",
		{"secret/metadata/hush/key", ""}:               "write data instead of metadata",
		{"secret/hush/key", ""}:                        "vault kv paths leave data out",
	} {
		_, err := ParseReference(input[0], input[1])
		if !errors.Is(err, ErrInvalidReference) || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "mount/data/path/to/secret/key") {
			t.Errorf("%q: %v, want %q", input, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%q is quoted: %v", input, err)
		}
	}
	for _, prefix := range []string{"v1/", "v1/secret/", "https://vault/v1/secret/",
		"{{prod|ap_sep_v1|secret/"} {
		if got, err := ParsePrefix(prefix); !errors.Is(err, ErrInvalidReference) ||
			!strings.Contains(err.Error(), "it ") {
			t.Errorf("%q: %q, %v", prefix, got, err)
		}
	}
}

func TestWhatOnlyLooksLikeAnotherToolsReferenceStaysGood(t *testing.T) {
	for input, want := range map[string]Reference{
		"v2/data/x/key":                 {"v2/data/x", "key"},
		"V1/data/x/key":                 {"V1/data/x", "key"},
		"v1x/data/x/key":                {"v1x/data/x", "key"},
		"secret/data/v1/key":            {"secret/data/v1", "key"},
		"secret/v1/data/x/key":          {"secret/v1/data/x", "key"},
		"secret/data/app/mysec#api_key": {"secret/data/app", "mysec#api_key"},
		"secret/data/a#b/key":           {"secret/data/a#b", "key"},
		"#/data/x/#":                    {"#/data/x", "#"},
		"secret/data/{{env}}/key":       {"secret/data/{{env}}", "key"},
		"secret/data/x/{{key}}":         {"secret/data/x", "{{key}}"},
		"{x}/data/x/key":                {"{x}/data/x", "key"},
		"secret/data/http:/key":         {"secret/data/http:", "key"},
		`secret/data/a\b/key`:           {`secret/data/a\b`, "key"},
		"secret/data/a%2fb/key":         {"secret/data/a%2fb", "key"},
		"metadata/data/x/key":           {"metadata/data/x", "key"},
		"secret/data/x|ap_sep_v1|y/key": {"secret/data/x|ap_sep_v1|y", "key"},
	} {
		if got, err := ParseReference(input, ""); err != nil || got != want {
			t.Errorf("%q: %+v, %v", input, got, err)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for _, good := range []string{"secret/", "secret/data/", "secret/data/app/", "a b/"} {
		if got, err := ParsePrefix(good); err != nil || got != good {
			t.Errorf("%q: %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{"", "/", "secret", "secret//", "/secret/", "secret/../", "sys/",
		"secret/\n/", "secret/\xff/"} {
		if got, err := ParsePrefix(bad); !errors.Is(err, ErrInvalidReference) {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("secret/data/mysec/api_key", "")
	f.Add("secret/data/mysec", "a/b")
	f.Add("secret/data/../../sys/mounts", "")
	f.Add("a/data/\xff/k", "")
	f.Fuzz(func(t *testing.T, path, key string) {
		ref, err := ParseReference(path, key)
		if err != nil {
			if !errors.Is(err, ErrInvalidReference) || ref != (Reference{}) {
				t.Fatalf("%+v, %v", ref, err)
			}
			return
		}
		whole := ref.Path
		if key == "" {
			whole += "/" + ref.Key
		}
		if whole != path || ref.Key == "" || !utf8.ValidString(ref.Path+ref.Key) ||
			len(path) > maxReferenceBytes {
			t.Fatalf("%q, %q became %+v", path, key, ref)
		}
		for segment := range strings.SplitSeq(ref.Path, "/") {
			if segment == "" || segment == "." || segment == ".." {
				t.Fatalf("%q holds segment %q", ref.Path, segment)
			}
		}
		if again, err := ParseReference(ref.Path, ref.Key); err != nil || again != ref {
			t.Fatalf("%+v does not survive: %+v, %v", ref, again, err)
		}
		if _, err := ParsePrefix(ref.Path + "/"); err != nil {
			t.Fatalf("%q is no prefix: %v", ref.Path, err)
		}
	})
}
