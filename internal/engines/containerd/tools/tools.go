//go:build tools

// Package tools names what the test program sigs.k8s.io/cri-tools/cmd/critest is made of: a
// directive "tool" of go.mod takes no test program.
package tools

import (
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
