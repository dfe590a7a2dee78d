package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// module makes a module with these files, of which the program links the package in dir.
func module(t *testing.T, path, dir string, files map[string]string) goPackage {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, dir), 0o750); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := goPackage{ImportPath: path + "/" + dir, Dir: filepath.Join(root, dir)}
	p.Module = &struct{ Path, Version, Dir string }{path, "v1.2.3", root}
	return p
}

// notices is what would be written for the packages.
func notices(packages ...goPackage) (string, error) {
	parts, err := partsOf(packages)
	if err != nil {
		return "", err
	}
	if err := classify(parts); err != nil {
		return "", err
	}
	text, err := render(parts)
	return string(text), err
}

const mit = `MIT License

Copyright (c) 2026 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`

const gpl = `This program is free software: you can redistribute it and/or modify it under the
terms of the GNU General Public License as published by the Free Software Foundation, either version
3 of the License, or (at your option) any later version. This program is distributed in the hope
that it will be useful, but WITHOUT ANY WARRANTY; without even the implied warranty of
MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more
details. You should have received a copy of the GNU General Public License along with this program.
If not, see <http://www.gnu.org/licenses/>.
`

func TestAModuleThatMayNotBeShippedIsAnError(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"no licence":          {map[string]string{"README.md": "free for all"}, "has no licence"},
		"a notice alone":      {map[string]string{"NOTICE": "by Somebody"}, "has no licence"},
		"an unknown licence":  {map[string]string{"LICENSE": "Ask me first."}, "licence"},
		"one not allowed":     {map[string]string{"LICENSE": gpl}, "not allowed"},
		"one not allowed low": {map[string]string{"LICENSE": mit, "in/COPYING": gpl}, "not allowed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text, err := notices(module(t, "example.com/them", "in/side", test.files))
			if err == nil || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), "example.com/them") {
				t.Errorf("error is %v, want one about the module with %q\n%s", err, test.want, text)
			}
		})
	}
}

func TestEveryLegalTextOnTheWayToALinkedPackageIsThereOnce(t *testing.T) {
	text, err := notices(
		module(t, "example.com/a", "in/side", map[string]string{
			"LICENSE": mit, "NOTICE.txt": "By Somebody.", "out/LICENSE": gpl, "license.go": "package a",
			"in/LICENSE": strings.ReplaceAll(mit, "Somebody", "Other"),
		}),
		module(t, "example.com/b", "", map[string]string{"License.md": mit + "\r\n"}),
		module(t, own+"/gen", "", nil),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nexample.com/a v1.2.3 MIT\nexample.com/b v1.2.3 MIT\n\n",
		"example.com/a, LICENSE\nexample.com/b, License.md\n",
		"example.com/a, NOTICE.txt\n", "By Somebody.", "example.com/a/in, LICENSE\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if n := strings.Count(text, "Copyright (c) 2026 Somebody"); n != 1 {
		t.Errorf("one text is there %d times", n)
	}
	if strings.Contains(text, "GNU") || strings.Contains(text, "package a") {
		t.Error("it holds what is not linked")
	}
}

func TestALicenceThatAPersonHasReadIsReadAgainWhenItChanges(t *testing.T) {
	const psx = "kernel.org/pub/linux/libs/security/libcap/psx"
	_, err := notices(module(t, psx, "", map[string]string{"License": mit}))
	if err == nil || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("error is %v", err)
	}
}
