package netns

import (
	"context"

	"github.com/boxwire/boxwire/internal/nl"
)

// Subscribe opens a socket in the namespace that receives the kernel's events of
// a netlink family. Like [NS.Exchange] it is for the packages of this module. The
// socket is the caller's to close, and outlives the handle.
func (ns *NS) Subscribe(ctx context.Context, family int, cfg nl.EventConfig) (*nl.Events, error) {
	var e *nl.Events
	var err error
	if ierr := ns.inside(ctx, func() { e, err = nl.Subscribe(family, cfg) }); ierr != nil {
		return nil, ierr
	}
	return e, err
}
