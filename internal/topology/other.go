//go:build !linux

package topology

import (
	"context"
	"errors"
	"fmt"
)

// Read returns errors.ErrUnsupported: it needs Linux.
func Read(context.Context) (*Snapshot, error) {
	return nil, fmt.Errorf("topology.Read: %w: it needs Linux", errors.ErrUnsupported)
}
