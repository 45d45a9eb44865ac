package nat

import (
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// way is what flows through a link depend on that are in the flowtable.
type way struct {
	master int // of a port
	mtu    uint32
}

// way notes that the flowtable has to have a new port, and what changes of a link its flows would not heed. The
// kernel sends those through a bridge to the port itself, and takes them from there, wherever that port is.
// Those of IPv6 keep the MTU that they began with. The event may be that of a bridge (br_ifinfo_notify).
func (k *maintainer) way(m nl.Message, l rtnl.Link, ways map[int]way) {
	was, is := ways[l.Index], way{l.Master, l.MTU}
	ways[l.Index] = is
	if m.Type == unix.RTM_DELLINK {
		is.master = 0
		delete(ways, l.Index)
	}
	moved := was.master != is.master && throughPorts()
	flows := moved && was.master != 0 || was.mtu != 0 && was.mtu != is.mtu
	if (moved || flows) && k.flowing.Load() {
		k.note(func(t *todo) { t.links, t.flows = true, t.flows || flows })
	}
}

// address notes with the flowtable that a link may lead elsewhere now, or does not any more.
func (k *maintainer) address(body []byte) {
	if !k.flowing.Load() {
		return
	}
	if a, err := rtnl.DecodeAddr(body); err == nil && leadsElsewhere(a) {
		k.note(func(t *todo) {
			if t.links = true; !t.table && !t.open && t.repair == (Repair{}) {
				t.repair = Repair{Reason: ReasonLinkAppeared}
			}
		})
	}
}
