package nat

import (
	"context"
	"errors"
	"os"

	"github.com/boxwire/boxwire/internal/refuse"
)

// errReadOnly is the error of a change by a NAT that was opened with Options.ReadOnly.
var errReadOnly = refuse.As(os.ErrPermission, "the table was opened read-only (Options.ReadOnly)")

// find checks that the table is there, ours and of the present version. It changes nothing.
func (n *NAT) find(ctx context.Context) error {
	c, err := n.conn()
	if err != nil {
		return err
	}
	if _, err := c.Generation(ctx); err != nil { // it tells a kernel without nftables from one without the table
		return err
	}
	err = n.checkOwned(ctx, c)
	if errors.Is(err, os.ErrNotExist) {
		return refuse.As(os.ErrNotExist, "there is no table of that name, and ReadOnly installs none")
	}
	return err
}

// mayChange refuses changes by a NAT that was opened read-only. All that changes something asks it
// before anything is sent: lock does, and Maintain, which opens sockets for events first.
func (n *NAT) mayChange() error {
	if n.readOnly {
		return errReadOnly
	}
	return nil
}
