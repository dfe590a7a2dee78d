package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var namedFile = regexp.MustCompile("`([a-z0-9_/]+\\.go)`")

func TestThePageOfThePackagesNamesFilesThatExist(t *testing.T) {
	const top = "../.."
	page, err := os.ReadFile(filepath.Join(top, "docs", "packages.md"))
	if err != nil {
		t.Fatal(err)
	}
	files := namedFile.FindAllStringSubmatch(string(page), -1)
	if len(files) == 0 {
		t.Error("the page names no file")
	}
	for _, file := range files {
		if _, err := os.Stat(filepath.Join(top, file[1])); err != nil {
			t.Errorf("the page names %s: %v", file[1], err)
		}
	}
}
