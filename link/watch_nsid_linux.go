package link

import (
	"context"
	"errors"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
)

// ownID knows the id that a namespace has given to itself. The kernel makes one when
// another namespace's links are listed by their id. Kernels, 5.10 to 6.18 at least,
// then send the namespace's own events with that id, as if they were another's.
type ownID struct {
	ns     *netns.NS
	id     int
	others map[int]bool // ids that were found to be of other namespaces
}

// of returns the id of an event: [nl.NoID] for one of the namespace itself.
func (o *ownID) of(ctx context.Context, id int) int {
	switch {
	case id == nl.NoID || o.others[id]:
		return id
	case id == o.id:
		return nl.NoID
	}
	own, err := o.ns.NSID(ctx, o.ns)
	switch {
	case err == nil && own == id:
		o.id = id
		return nl.NoID
	case err == nil || errors.Is(err, os.ErrNotExist):
		if o.others == nil {
			o.others = make(map[int]bool)
		}
		o.others[id] = true
	}
	return id
}

// ended forgets an id that may be given again.
func (o *ownID) ended(id int) {
	delete(o.others, id)
	if o.id == id {
		o.id = nl.NoID
	}
}
