package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// own is how the modules of this project begin: their licence is in LICENSE.
const own = "github.com/secret-sidecar/secret-sidecar"

// goPackage is the part of `go list -json` that counts here.
type goPackage struct {
	ImportPath string
	Dir        string
	Standard   bool
	Module     *struct{ Path, Version, Dir string }
}

// part is a directory that the program links code from, with legal texts of its own: the root of a
// module, or a directory in it whose code came from elsewhere.
type part struct {
	module, version string
	name            string // of the directory: the module's path, and what follows in it
	dir             string
	files           []string // names of the legal texts in dir
	licence         string   // SPDX; classify sets it
}

// linkedPackages lists what the program links, for every processor that an image is made for.
func linkedPackages(ctx context.Context, program string) ([]goPackage, error) {
	var linked []goPackage
	for _, arch := range []string{"amd64", "arm64"} {
		list := exec.CommandContext(ctx, "go", "list", "-deps",
			"-json=ImportPath,Dir,Standard,Module", program) // #nosec G204 -- no shell
		list.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
		list.Stderr = os.Stderr
		out, err := list.Output()
		if err != nil {
			return nil, fmt.Errorf("list what %s links: %w", program, err)
		}
		packages, err := decodePackages(out)
		if err != nil {
			return nil, err
		}
		linked = append(linked, packages...)
	}
	return linked, nil
}

func decodePackages(text []byte) ([]goPackage, error) {
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the answer of go list: %w", err)
		}
		packages = append(packages, p)
	}
}

// standardLibrary has no version: every Go that builds the program brings the same texts.
func standardLibrary(ctx context.Context) (*part, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("ask where Go is: %w", err)
	}
	return &part{
		name: "Go's standard library", dir: strings.TrimSpace(string(root)),
		files: []string{"LICENSE", "PATENTS"},
	}, nil
}

// partsOf returns the parts of the modules of others, in the order of their names. A module whose
// root has no licence is an error.
func partsOf(packages []goPackage) ([]*part, error) {
	found := map[string]*part{}
	for _, p := range packages {
		if p.Standard || p.Module == nil || strings.HasPrefix(p.Module.Path+"/", own+"/") {
			continue
		}
		for dir := p.Dir; ; dir = filepath.Dir(dir) {
			if err := addPart(found, p, dir); err != nil {
				return nil, err
			}
			if dir == p.Module.Dir {
				break
			}
		}
	}
	parts := make([]*part, 0, len(found))
	for _, one := range found {
		parts = append(parts, one)
	}
	slices.SortFunc(parts, func(a, b *part) int { return strings.Compare(a.name, b.name) })
	return parts, nil
}

func addPart(found map[string]*part, p goPackage, dir string) error {
	inside, err := filepath.Rel(p.Module.Dir, dir)
	if err != nil || strings.HasPrefix(inside, "..") {
		return fmt.Errorf("%s is not below %s", dir, p.Module.Dir)
	}
	name := filepath.Join(p.Module.Path, inside)
	if found[name] != nil {
		return nil
	}
	files, err := legalTexts(dir)
	if err != nil {
		return err
	}
	if len(files) == 0 && inside != "." {
		return nil
	}
	if !slices.ContainsFunc(files, licenceName.MatchString) && inside == "." {
		return fmt.Errorf("%s %s has no licence: nobody may ship it", p.Module.Path,
			p.Module.Version)
	}
	found[name] = &part{
		module: p.Module.Path, version: p.Module.Version, name: name, dir: dir, files: files,
	}
	return nil
}

var (
	licenceName = regexp.MustCompile(`(?i)^(un)?(li[cs]en[cs]e|copying)([-._].*)?$`)
	noticeName  = regexp.MustCompile(`(?i)^(notice|patents|copyright)([-._].*)?$`)
)

// legalTexts names the licences, notices and patent grants in a directory, licences first.
func legalTexts(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var licences, notices []string
	for _, entry := range entries {
		switch name := entry.Name(); {
		case !entry.Type().IsRegular() || strings.HasSuffix(name, ".go"):
		case licenceName.MatchString(name):
			licences = append(licences, name)
		case noticeName.MatchString(name):
			notices = append(notices, name)
		}
	}
	return append(licences, notices...), nil
}
