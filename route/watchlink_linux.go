package route

import (
	"context"
	"encoding/binary"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// links is what a watch knows of the links of the namespace. The kernel changes routes,
// rules and next hops with them, and sends no event.
type links map[int]linkState

// linkState is a link's name and what its routes depend on. The zero linkState is
// that of a link that is not there.
type linkState struct {
	name    string
	flags   uint32 // IFF_UP, IFF_RUNNING, IFF_LOWER_UP
	carries carries
}

// carries is what routes by a link depend on: whether it is up and has a carrier,
// the MTU that lowers that of IPv6 routes, and the VRF, perhaps, that the link is
// enslaved to.
type carries struct {
	up, carrier bool
	mtu, master uint32
}

// readLinks reads all links.
func readLinks(ctx context.Context, conn *nl.Conn) (links, error) {
	l := links{}
	const extMask, skipStats = 29, 8 // IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
	body := nl.AppendU32(make([]byte, unix.SizeofIfInfomsg), extMask, skipStats)
	err := conn.Dump(ctx, nl.Request{Type: unix.RTM_GETLINK, Body: body}, func() { clear(l) }, func(m nl.Message) error {
		l.update(m)
		return nil
	})
	return l, err
}

// update stores what a message says of a link, and returns the link's state before and
// after.
func (l links) update(m nl.Message) (dev int, was, is linkState) {
	if len(m.Body) < unix.SizeofIfInfomsg || m.Body[0] != unix.AF_UNSPEC {
		return 0, was, is
	}
	dev = int(binary.NativeEndian.Uint32(m.Body[4:]))
	was = l[dev]
	if m.Type == unix.RTM_DELLINK {
		delete(l, dev)
		return dev, was, is
	}
	is.flags = binary.NativeEndian.Uint32(m.Body[8:]) & (unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP)
	is.carries.up = is.flags&unix.IFF_UP != 0
	is.carries.carrier = is.flags&(unix.IFF_RUNNING|unix.IFF_LOWER_UP) != 0 // as fib_netdev_event sees it
	w := nl.Walk(m.Body[unix.SizeofIfInfomsg:])
	for w.Next() {
		switch w.Type() {
		case unix.IFLA_IFNAME:
			is.name = w.String()
		case unix.IFLA_MTU:
			is.carries.mtu = w.U32()
		case unix.IFLA_MASTER:
			is.carries.master = w.U32()
		}
	}
	l[dev] = is
	return dev, was, is
}

// settle waits for changes of links that are under way. The kernel notifies a link that
// goes down before it removes the routes, and holds its lock all the time.
func settle(ctx context.Context, conn *nl.Conn) error { return conn.Call(ctx, settled(), nil) }

// settled is a request that the kernel answers once it has its lock (rtnl_lock), and so
// after changes that are under way and their events. It asks for lo.
func settled() nl.Request {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], 1)
	return nl.Request{Type: unix.RTM_GETLINK, Body: b}
}
