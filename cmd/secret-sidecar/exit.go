package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake on the command line or in the configuration: nothing was tried, and
// trying again changes nothing. Every other error is a failure.
type usageError struct{ error }

// Unwrap returns the error inside.
func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// printError prefixes every line of the error's text with the program's name.
func printError(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "secret-sidecar: %s\n", strings.TrimRight(line, "\n"))
	}
}
