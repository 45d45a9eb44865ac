//go:build !linux

package nl

import "syscall"

func errnoName(syscall.Errno) string { return "" }
