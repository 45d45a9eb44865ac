//go:build !linux

package kernel

// Release says that there is none.
func Release() string { return "not Linux" }
