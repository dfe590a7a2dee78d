package image_test

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bom is what these tests read of a CycloneDX document.
type bom struct {
	BOMFormat string `json:"bomFormat"`
	Metadata  struct {
		Component  struct{ Name, Version string }
		Properties []struct{ Name, Value string }
	}
	Components []struct{ Name, Version, Purl string }
}

func readBOM(t *testing.T, path string) bom {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	var b bom
	must(t, json.Unmarshal(text, &b))
	return b
}

func TestTheSBOMListsEveryModuleOfTheImagesProgram(t *testing.T) {
	built := directory(t)
	for arch := range machines {
		t.Run(arch, func(t *testing.T) {
			b := readBOM(t, filepath.Join(built, "built", arch, "secret-sidecar.cdx.json"))
			if b.BOMFormat != "CycloneDX" || b.Metadata.Component.Version != os.Getenv("VERSION") {
				t.Errorf("it is a %s of %+v", b.BOMFormat, b.Metadata.Component)
			}
			program := filepath.Join(unpack(t, openImage(t, filepath.Join(built, "first"), arch)),
				"secret-sidecar")
			info, err := buildinfo.ReadFile(program)
			must(t, err)
			want := map[string]bool{"std@" + strings.TrimPrefix(info.GoVersion, "go"): true}
			for _, module := range info.Deps {
				want[module.Path+"@"+module.Version] = true
			}
			for _, component := range b.Components {
				name := component.Name + "@" + strings.TrimPrefix(component.Version, "go")
				if !want[name] {
					t.Errorf("the SBOM lists %s, which is not in the program", name)
				}
				delete(want, name)
			}
			for name := range want {
				t.Errorf("the SBOM lacks %s", name)
			}
			content, err := os.ReadFile(program)
			must(t, err)
			digest := sha256.Sum256(content)
			if sha := b.property("cdx:gomod:binary:hash:SHA-256"); sha != hex.EncodeToString(
				digest[:]) {
				t.Errorf("it is the SBOM of a program whose SHA-256 is %q", sha)
			}
		})
	}
}

func (b bom) property(name string) string {
	for _, property := range b.Metadata.Properties {
		if property.Name == name {
			return property.Value
		}
	}
	return ""
}
