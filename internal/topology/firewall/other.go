//go:build !linux

package firewall

import (
	"context"
	"errors"
	"fmt"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// Read returns errors.ErrUnsupported: it needs Linux.
func Read(context.Context, *netns.NS) (topology.Firewall, error) {
	return topology.Firewall{}, fmt.Errorf("firewall.Read: %w: it needs Linux", errors.ErrUnsupported)
}

// Why returns errors.ErrUnsupported: it needs Linux.
func Why(context.Context, *topology.Snapshot, uint64, topology.Port) (nat.Causes, error) {
	return nil, fmt.Errorf("firewall.Why: %w: it needs Linux", errors.ErrUnsupported)
}
