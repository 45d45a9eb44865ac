//go:build !linux

package netnstest

func prepare() {}
