package topology

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/netns"
)

// Open opens a namespace of a snapshot that was read on this machine. One that has ended is
// os.ErrNotExist, and so is one of a snapshot from elsewhere.
func (n *Namespace) Open(ctx context.Context) (*netns.NS, error) {
	last := fmt.Errorf("namespace %s, net:[%d]: nothing that holds it is known: %w", n.Title(), n.Inode, os.ErrNotExist)
	for _, path := range n.paths {
		ns, err := netns.OpenPath(ctx, path)
		if err == nil && ns.ID().Ino == n.Inode {
			return ns, nil
		}
		switch {
		case err == nil:
			ns.Close()
		case errors.Is(err, os.ErrNotExist), errors.Is(err, netns.ErrNotNamespace), errors.Is(err, netns.ErrOtherKind):
			// The path is that of something else by now: a descriptor may be another file, and a name that
			// is being deleted is a plain one.
		default:
			last = err
		}
	}
	return nil, last
}
