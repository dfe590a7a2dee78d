//go:build !linux

package harden

import "errors"

var errLinuxOnly = errors.New("it is to be had on Linux alone")

func restrictFiles(Folders) error { return errLinuxOnly }

func lockMemory() error { return errLinuxOnly }
