//go:build !linux

package topology

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Read returns errors.ErrUnsupported: it needs Linux.
func Read(context.Context, Options) (*Snapshot, error) {
	return nil, fmt.Errorf("topology.Read: %w: it needs Linux", errors.ErrUnsupported)
}

// Watch yields errors.ErrUnsupported: it needs Linux.
func Watch(context.Context, Options) iter.Seq2[*Snapshot, error] {
	return func(yield func(*Snapshot, error) bool) {
		yield(nil, fmt.Errorf("topology.Watch: %w: it needs Linux", errors.ErrUnsupported))
	}
}
