package wire

import (
	"context"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/route"
)

// known is what the kernel's routes are, as long as somebody follows the Changes: an Apply then writes what is new and reads nothing.
// Whoever follows a thousand peers would otherwise read two thousand routes for each that changes, and once more for what it wrote
// itself. It belongs to Wire.mu.
type known struct {
	watched bool                   // a watch of the routes is complete
	doubts  uint64                 // rises with each change that is not the last Apply's own
	want    map[place]*route.Route // the plan of the last Apply, or of the one under way; its routes have no protocol
	whole   bool                   // the kernel has exactly want
}

// doubt has the next Apply read the kernel.
func (k *known) doubt() { k.doubts, k.whole = k.doubts+1, false }

// begin says what an Apply is going to make of the kernel; the plan must not change any more. It returns what has to be added if that
// is all that has to be done. It reports false if the kernel has to be read.
func (w *Wire) begin(p plan.Plan) (added []route.Route, doubts uint64, ok bool) {
	all := make(map[place]*route.Route, len(p.Routes))
	for i := range p.Routes {
		all[placeOf(p.Routes[i])] = &p.Routes[i]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	k := &w.known
	ok = k.watched && k.whole && !p.WireGuard
	if ok {
		same := 0
		for i := range p.Routes {
			r := p.Routes[i]
			switch old := k.want[placeOf(r)]; {
			case old == nil:
				r.Protocol = w.o.Owner
				added = append(added, r)
			case !old.Equal(r):
				ok = false
			default:
				same++
			}
		}
		ok = ok && same == len(k.want) // none goes
	}
	k.want, k.whole = all, false
	return added, k.doubts, ok
}

// done says that the kernel has what begin has announced.
func (w *Wire) done(doubts uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known.whole = w.known.watched && w.known.doubts == doubts
}

// add adds routes that the kernel does not have. It reports false if that is not so, or does not work: Sync finds out.
func (w *Wire) add(ctx context.Context, routes []route.Route) bool {
	return len(routes) == 0 || route.Add(ctx, w.ns, routes...) == nil
}

// watching says whether the routes are watched from now on.
func (w *Wire) watching(is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known.watched = is
	w.known.doubt()
}

// doubt has the next Apply read the kernel: something has changed.
func (w *Wire) doubt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known.doubt()
}

// expects reports whether a change of a route is what an Apply wants: its own work, most likely. A route that is replaced is deleted,
// as the watch tells it.
func (w *Wire) expects(kind route.EventKind, r route.Route) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	want := w.known.want[placeOf(r)]
	r.Protocol = 0 // the watch is of the owner's
	is := want != nil && want.Equal(r)
	if kind == route.EventDeleted {
		return !is
	}
	return is
}
