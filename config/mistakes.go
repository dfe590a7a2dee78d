package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mistake is one thing to correct. Its text never holds a credential.
type Mistake struct {
	// File is the configuration file; empty when the environment is the configuration.
	File string
	// Line and Column count from 1; 0 means no place in a file.
	Line, Column int
	// Path is the YAML path, for example "connections[0].cache.ttl", or a variable's name. Empty is
	// the whole file.
	Path string
	// Message says what is wrong and what to write instead.
	Message string
}

// String returns `file:line:column: path: message`, without the parts that are not set.
func (m Mistake) String() string {
	var place string
	if m.File != "" {
		place = m.File + ": "
	}
	if m.Line > 0 {
		place = fmt.Sprintf("%s:%d:%d: ", m.File, m.Line, m.Column)
	}
	if m.Path != "" {
		place += m.Path + ": "
	}
	return place + m.Message
}

// Mistakes is the error about a configuration: everything that is wrong with it, in the file's
// order. Find it in an error with errors.As. As an error it is never empty.
type Mistakes []Mistake

// Error returns one line for each mistake.
func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i, mistake := range m {
		lines[i] = mistake.String()
	}
	return strings.Join(lines, "\n")
}

// err returns the mistakes in the file's order as an error, or nil when there are none.
func (m Mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	m.sort()
	return m
}

func (m Mistakes) sort() {
	slices.SortStableFunc(m, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// origins records where a value is, by its path in Config, as a Mistake without a message.
type origins map[string]Mistake
