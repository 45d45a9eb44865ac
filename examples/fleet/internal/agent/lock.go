package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// lock is what one agent alone has in a network namespace.
type lock []io.Closer

// takeLock makes the agent the only one that has the tunnel link, and the only one whose routes have the protocol: each of two would
// delete the other's. The lock is an abstract unix socket for each: the kernel has one of a name in each network namespace, and it
// ends with the process, however that ends.
func takeLock(ctx context.Context, ns *netns.NS, link string, owner route.Protocol) (lock, error) {
	var l lock
	for _, one := range []struct{ name, what string }{
		{link, "the link " + link + ": one machine has one agent"},
		{fmt.Sprint("protocol ", uint8(owner)), fmt.Sprintf("routes of protocol %d: one machine has one agent", uint8(owner))},
	} {
		ln, err := ns.Listen(ctx, "unix", "@boxwire-fleet/"+one.name)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("another agent of this network namespace has %s", one.what)
		}
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l = append(l, ln)
	}
	return l, nil
}

// Close gives the lock up.
func (l lock) Close() error {
	var errs []error
	for _, c := range l {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
