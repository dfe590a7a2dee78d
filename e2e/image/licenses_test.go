package image_test

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What may not be shipped alone is shipped with it: the image, and the program outside of it, have
// the licence of every module that the linker put in.
func TestTheImageHoldsTheLicencesOfAllThatIsLinked(t *testing.T) {
	built := directory(t)
	for arch := range machines {
		t.Run(arch, func(t *testing.T) {
			root := unpack(t, openImage(t, filepath.Join(built, "first"), arch))
			doc := filepath.Join(root, "usr", "share", "doc", "secret-sidecar")
			beside := filepath.Join(built, "built", arch)
			for _, name := range []string{"LICENSE", "THIRD_PARTY_LICENSES"} {
				inside, err := os.ReadFile(filepath.Join(doc, name))
				must(t, err)
				outside, err := os.ReadFile(filepath.Join(beside, name))
				must(t, err)
				if len(inside) == 0 || !bytes.Equal(inside, outside) {
					t.Errorf("%s of the image is not what is beside the program", name)
				}
			}
			text, err := os.ReadFile(filepath.Join(doc, "THIRD_PARTY_LICENSES"))
			must(t, err)
			info, err := buildinfo.ReadFile(filepath.Join(root, "secret-sidecar"))
			must(t, err)
			for _, module := range info.Deps {
				ours := strings.HasPrefix(module.Path, info.Main.Path)
				if !ours && !bytes.Contains(text, []byte("\n"+module.Path+" "+module.Version+" ")) {
					t.Errorf("it lacks %s %s", module.Path, module.Version)
				}
			}
		})
	}
}
