package netns

import (
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// OwnExchange returns a netlink connection like that of [NS.Exchange], but one
// that is the caller's alone, for an exchange that takes its time; the caller
// closes it. It is for the packages of this module.
func (ns *NS) OwnExchange(family int) (*nl.Conn, error) {
	if ns == nil || ns.file == nil {
		return nil, refuse.Input("no namespace: the handle is nil")
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return nil, os.ErrClosed
	}
	return nl.NewConn(family, func() (*os.File, error) { return ns.dialExchange(family) }), nil
}
