//go:build !linux

package harden

import "errors"

var errLinuxOnly = errors.New("only Linux offers it")

func restrictFiles(Directories) error { return errLinuxOnly }

func lockMemory() error { return errLinuxOnly }
