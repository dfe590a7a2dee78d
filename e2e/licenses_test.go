package e2e_test

import (
	"debug/buildinfo"
	"slices"
	"strings"
	"testing"
)

// The linker is the witness: what it put into the program is listed, and nothing else.
func TestTheLicencesAreThoseOfTheLinkedModules(t *testing.T) {
	t.Parallel()
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	var linked []string
	for _, module := range info.Deps {
		if !strings.HasPrefix(module.Path, info.Main.Path+"/") { // ours are under LICENSE
			linked = append(linked, module.Path+" "+module.Version)
		}
	}
	text := newSandbox(t).succeeds("licenses")
	list, texts, _ := strings.Cut(text, "\n-----")
	var listed []string
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) == 3 && strings.HasPrefix(fields[1], "v") {
			listed = append(listed, fields[0]+" "+fields[1])
		}
		if len(fields) == 3 && !strings.Contains(texts, "\n"+fields[0]+", ") {
			t.Errorf("there is no text of %s", fields[0])
		}
	}
	slices.Sort(linked)
	if !slices.Equal(listed, linked) {
		t.Errorf("run `make licenses`: the program prints the licences of\n%s\nand is linked "+
			"from\n%s",
			strings.Join(listed, "\n"), strings.Join(linked, "\n"))
	}
	// MPL-2.0, 3.2: who gets the program is told how to get the source.
	const source = "go mod download MODULE@VERSION"
	if !strings.Contains(list, " MPL-2.0\n") || !strings.Contains(list, source) {
		t.Error("it does not tell where the source of modules under MPL-2.0 is")
	}
}
