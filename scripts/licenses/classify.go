package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/licenseclassifier"
	"go.elastic.co/go-licence-detector/dependency"
	"go.elastic.co/go-licence-detector/detector"
)

// rules says which licences this project may link: none of them binds the project's own code. For
// MPL-2.0 the notice says where the source is.
var rules = &detector.Rules{AllowList: map[string]struct{}{
	"Apache-2.0": {}, "BSD-2-Clause": {}, "BSD-3-Clause": {}, "ISC": {}, "MIT": {}, "MPL-2.0": {},
}}

// read is the licence of a text that a person has read, because the classifier is wrong about it.
type read struct{ licence, sha256 string }

// readByPerson holds them by directory. Another text in the place of one has to be read again.
var readByPerson = map[string]read{
	// A choice of two licences: the classifier sees the GPL alone.
	"kernel.org/pub/linux/libs/security/libcap/psx": {
		licence: "BSD-3-Clause",
		sha256:  "279fa656c62857d42952b86a0789b98669ca1cb4b324a8d9e91397c174af4c14",
	},
}

// openClassifier is done once: the texts that it knows take a second to read.
var openClassifier = sync.OnceValues(func() (*licenseclassifier.License, error) {
	return detector.NewClassifier("")
})

// classify sets the licence of every part. One that is unknown or not allowed is an error.
func classify(parts []*part) error {
	classifier, err := openClassifier()
	if err != nil {
		return fmt.Errorf("open the classifier of licences: %w", err)
	}
	for _, one := range parts {
		if !licenceName.MatchString(one.files[0]) {
			one.licence = "" // a notice alone: the licence is that of the directory above
			continue
		}
		overrides, err := overridesFor(one)
		if err != nil {
			return err
		}
		module, err := json.Marshal(map[string]string{
			"Path": one.name, "Version": one.version, "Dir": one.dir,
		})
		if err != nil {
			return err
		}
		list, err := detector.Detect(bytes.NewReader(module), classifier, rules, overrides, true)
		if err != nil {
			return fmt.Errorf("%w (this project links what scripts/licenses/classify.go allows)",
				err)
		}
		one.licence = list.Direct[0].LicenceType
	}
	return nil
}

// overridesFor names the file to look at, and the licence where a person has read it.
func overridesFor(one *part) (dependency.Overrides, error) {
	info := dependency.Info{Name: one.name, LicenceFile: one.files[0]}
	if known, ok := readByPerson[one.name]; ok {
		text, err := os.ReadFile(filepath.Join(one.dir, one.files[0])) // #nosec G304 -- of a module
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != known.sha256 {
			return nil,
				fmt.Errorf("the licence of %s %s has changed: read %s, then correct readByPerson",
					one.name, one.version, filepath.Join(one.dir, one.files[0]))
		}
		info.LicenceType = known.licence
	}
	return dependency.Overrides{one.name: info}, nil
}
