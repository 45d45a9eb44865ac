package wire

import (
	"context"
	"sync"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// The defaults of [Options].
const (
	DefaultLink  = "fl0"
	DefaultOwner = route.Protocol(201)
)

// Options says how a Wire names what it makes. The zero Options have the defaults.
type Options struct {
	Link  string         // the tunnel link's name; DefaultLink
	Owner route.Protocol // of the fleet's routes, that no other program uses; DefaultOwner

	// Underlay are the names of the links that lead to peers, the preferred first. nil are those that default routes leave by, or
	// all links with an address if there is no default route.
	Underlay []string

	// Dir is the node's state directory, which has the private key of WireGuard. Only mode wireguard needs it.
	Dir string
}

// Wire applies plans to one network namespace. Its methods may be called from many goroutines; those that change something take
// turns. It has nothing to close.
type Wire struct {
	ns *netns.NS
	o  Options

	changing sync.Mutex // held while something is changed

	mu       sync.Mutex             // guards the following
	underlay map[int]bool           // by index, the links that may lead to peers; the last Underlay has found them
	set      map[[32]byte]endpoints // by public key: where a peer's endpoint was set to
	known    known                  // what the kernel's routes are
}

// New returns a Wire for a namespace. The handle must stay open while the Wire is used.
func New(ns *netns.NS, o Options) *Wire {
	if o.Link == "" {
		o.Link = DefaultLink
	}
	if o.Owner == 0 {
		o.Owner = DefaultOwner
	}
	return &Wire{ns: ns, o: o, underlay: map[int]bool{}, set: map[[32]byte]endpoints{}}
}

// Link is the name of the tunnel link.
func (w *Wire) Link() string { return w.o.Link }

// Owner is the protocol of the fleet's routes.
func (w *Wire) Owner() route.Protocol { return w.o.Owner }

// Routes returns the fleet's routes as the kernel has them: what an agent that starts takes over.
func (w *Wire) Routes(ctx context.Context) ([]route.Route, error) {
	return route.List(ctx, w.ns, route.Filter{Protocol: w.o.Owner})
}

// fail makes an error of this package.
func (w *Wire) fail(op, subject string, err error) error {
	return fail.New("wire."+op, w.ns, subject, err)
}

// subject names the tunnel link in an error.
func (w *Wire) subject() string { return "link " + w.o.Link }
