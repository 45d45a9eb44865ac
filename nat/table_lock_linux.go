package nat

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/filelock"
	"github.com/boxwire/boxwire/internal/nft"
)

// lock waits until no other change is under way in the namespace, and returns nftables there. A
// token excludes other changes of this NAT, a lock file those of other NATs and programs. Unless
// there is an error, unlock must follow. All that changes something begins with lock, so it refuses
// a NAT that was opened read-only.
//
// The table itself needs no lock, because each transaction names the generation that it was built
// on. The lock is for what cannot be in a transaction: reserved ports and settings of links. It
// also keeps programs that change the table all the time from making each other's transactions
// fail.
func (n *NAT) lock(ctx context.Context) (c nft.Conn, err error) {
	if c, err = n.conn(); err == nil {
		err = cmp.Or(n.mayChange(), ctx.Err())
	}
	if err != nil {
		return c, err
	}
	select {
	case n.turn <- struct{}{}:
	case <-ctx.Done():
		return c, ctx.Err()
	}
	if n.isClosed() { // while it waited: what it reserved now would never be released
		err = os.ErrClosed
	} else if n.unlockFile, err = filelock.Lock(ctx, fmt.Sprintf("boxwire-net-%d.lock", n.ns.ID().Ino)); err != nil {
		err = fmt.Errorf("waiting for another program's change: %w", err)
	}
	if err != nil {
		<-n.turn
	}
	return c, err
}

// unlock ends the change that lock began.
func (n *NAT) unlock() {
	n.unlockFile()
	<-n.turn
}
