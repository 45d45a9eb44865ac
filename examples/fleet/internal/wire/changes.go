package wire

import (
	"context"
	"iter"
	"net/netip"
	"sync"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/route"
)

// Changes yields an item as soon as it listens, and then one whenever somebody has changed the tunnel link, its addresses, the
// fleet's routes, the links of the underlay and their addresses, or the default routes, which say what the underlay is. Changes that
// come while the loop is busy make one item. A route that becomes what the last Apply wants is no change. What Ensure does is reported
// like any change: the next round finds nothing to do.
//
// So a loop that applies the present state once for each item always ends in that state. The sequence ends with the loop or with
// an error, which is the last item; when ctx is done, that is the error of ctx.
func (w *Wire) Changes(ctx context.Context) iter.Seq2[struct{}, error] {
	return func(yield func(struct{}, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var watches sync.WaitGroup
		defer watches.Wait()
		defer cancel()
		changed := make(chan struct{}, 1)
		ended := make(chan error, 3)
		synced := make(chan struct{}, 3)
		defer w.watching(false)
		notify := func() {
			w.doubt()
			select {
			case changed <- struct{}{}:
			default:
			}
		}
		watches.Go(func() { ended <- w.watchLinks(ctx, synced, notify) })
		watches.Go(func() { ended <- w.watchRoutes(ctx, synced, notify) })
		watches.Go(func() { ended <- w.watchDefaults(ctx, synced, notify) })
		for range 3 {
			select {
			case <-synced:
			case err := <-ended:
				yield(struct{}{}, err)
				return
			}
		}
		w.watching(true)
		notify()
		for {
			select {
			case err := <-ended:
				yield(struct{}{}, err)
				return
			case <-changed:
				if !yield(struct{}{}, nil) {
					return
				}
			}
		}
	}
}

// watchRoutes follows the fleet's routes.
func (w *Wire) watchRoutes(ctx context.Context, synced chan<- struct{}, notify func()) error {
	complete := once(synced)
	for e, err := range route.Watch(ctx, w.ns, route.Filter{Protocol: w.o.Owner}) {
		switch {
		case err != nil:
			return err
		case e.Kind == route.EventSynced:
			complete()
			notify()
		case (e.Kind == route.EventChanged || e.Kind == route.EventDeleted) && !w.expects(e.Kind, e.Item):
			notify()
		}
	}
	return ctx.Err()
}

// seen is what counts of a link.
type seen struct {
	name string
	mtu  int
	up   bool
}

// watchLinks follows the tunnel link, the underlay, and their addresses. Boxes come and go with links of their own, which do not
// count.
func (w *Wire) watchLinks(ctx context.Context, synced chan<- struct{}, notify func()) error {
	complete := once(synced)
	known := map[int]seen{}
	for e, err := range link.Watch(ctx, w.ns, link.TopicLinks, link.TopicAddrs) {
		switch {
		case err != nil:
			return err
		case e.Kind == link.EventResync:
			clear(known)
		case e.Kind == link.EventSynced:
			complete()
			notify()
		case e.Addr != nil:
			if e.Kind != link.EventPresent && (known[e.Addr.Link].name == w.o.Link || w.isUnderlay(e.Addr.Link) || leadsOut(e.Addr.Prefix.Addr())) {
				notify()
			}
		case e.Link != nil:
			was := known[e.Link.Index]
			is := seen{e.Link.Name, e.Link.MTU, e.Link.Up}
			if e.Kind == link.EventDeleted {
				delete(known, e.Link.Index)
				is = seen{}
			} else {
				known[e.Link.Index] = is
			}
			if e.Kind != link.EventPresent && was != is && (was.name == w.o.Link || is.name == w.o.Link || w.isUnderlay(e.Link.Index)) {
				notify()
			}
		}
	}
	return ctx.Err()
}

func (w *Wire) isUnderlay(index int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.underlay[index]
}

// leadsOut reports whether an address may make its link one of the underlay.
func leadsOut(a netip.Addr) bool { return !a.IsLoopback() && !a.IsLinkLocalUnicast() }

// once returns a function that says once that a watch is complete.
func once(synced chan<- struct{}) func() {
	return sync.OnceFunc(func() { synced <- struct{}{} })
}
