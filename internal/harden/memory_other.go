//go:build !linux

package harden

func cgroupMemoryLimit() int64 { return 0 }
