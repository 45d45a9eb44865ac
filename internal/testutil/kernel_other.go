//go:build !linux

package testutil

func kernelRelease() string { return "not Linux" }
