package nat

import (
	"context"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/filelock"
	"github.com/boxwire/boxwire/internal/nft"
)

// exclusive runs fn while no other change is under way in the namespace. A token excludes other
// changes of this NAT, a lock file those of other NATs and programs.
//
// The table itself needs no lock, because each transaction names the generation that it was built
// on. The lock is for what cannot be in a transaction: reserved ports and settings of links. It
// also keeps programs that change the table all the time from making each other's transactions
// fail. fn must not call exclusive.
func (n *NAT) exclusive(ctx context.Context, fn func(context.Context, nft.Conn) error) error {
	c, err := n.conn()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.isClosed() { // while it waited: what it reserved now would never be released
		return os.ErrClosed
	}
	unlock, err := filelock.Lock(ctx, fmt.Sprintf("boxwire-net-%d.lock", n.ns.ID().Ino))
	if err != nil {
		return fmt.Errorf("waiting for another program's change: %w", err)
	}
	defer unlock()
	return fn(ctx, c)
}
