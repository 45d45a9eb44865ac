package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// hop is how the host sends to an address.
type hop struct {
	kind    byte // unix.RTN_UNICAST, RTN_LOCAL, ...
	link    int
	gateway netip.Addr
}

// route asks the kernel for the way to an address. Without one, the hop is zero.
func (n *NAT) route(ctx context.Context, a netip.Addr) (h hop, err error) {
	c, err := n.ns.Exchange(unix.NETLINK_ROUTE)
	if err != nil {
		return h, err
	}
	b := make([]byte, unix.SizeofRtMsg, 32)
	b[0], b[1] = unix.AF_INET, byte(a.BitLen())
	if a.Is6() {
		b[0] = unix.AF_INET6
	}
	b = nl.AppendAttr(b, unix.RTA_DST, a.AsSlice())
	err = c.Call(ctx, nl.Request{Type: unix.RTM_GETROUTE, Body: b}, func(m nl.Message) error {
		if len(m.Body) < unix.SizeofRtMsg {
			return errors.New("malformed reply: a route without its header")
		}
		h.kind = m.Body[7] // struct rtmsg
		w := nl.Walk(m.Body[unix.SizeofRtMsg:])
		for w.Next() {
			switch w.Type() {
			case unix.RTA_OIF:
				h.link = int(w.U32())
			case unix.RTA_GATEWAY:
				h.gateway, _ = netip.AddrFromSlice(w.Data())
			}
		}
		return w.Err()
	})
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL, os.ErrNotExist} {
		if errors.Is(err, none) {
			return hop{}, nil // no route, or one of a type that refuses
		}
	}
	return h, err
}

// lookAtWay finds the links that visitors and answers pass.
func (d *diagnosis) lookAtWay(ctx context.Context) (err error) {
	if d.links, err = readLinks(ctx, d.n.ns); err != nil {
		return err
	}
	host := d.port.Host.Addr()
	if !host.IsUnspecified() {
		local, err := d.n.isLocal(ctx, host)
		if err != nil {
			return err
		}
		if !local {
			d.add(CauseAddressNotLocal, true, "address "+host.String(), "%v is no address of the host.", host)
		}
	}
	if !d.local {
		if err := d.findVisitorsLink(ctx); err != nil {
			return err
		}
	}
	if !d.box.IsValid() {
		return nil
	}
	a := d.box.Addr()
	h, err := d.n.route(ctx, a)
	switch {
	case err != nil:
		return err
	case h.kind == unix.RTN_LOCAL:
		d.add(CauseNoRoute, true, "address "+a.String(), "the box's address %v is the host's own.", a)
		return nil
	case h.kind != unix.RTN_UNICAST:
		d.add(CauseNoRoute, true, "address "+a.String(), "the host has no route to the box's address %v: no link that is up has an address of its subnet.", a)
	case h.gateway.IsValid():
		d.add(CauseNoRoute, false, "address "+a.String(), "the box's address %v is on no link of the host, but behind the router %v.", a, h.gateway)
	}
	d.out = d.link(h.link)
	return d.lookAtNetwork(ctx)
}

// lookAtNetwork looks whether the box's link has a network. Where there is no
// route, the network whose subnet holds the box's address tells the link.
func (d *diagnosis) lookAtNetwork(ctx context.Context) error {
	if !d.there {
		return nil
	}
	elems, err := d.c.Elements(ctx, d.n.table, familyOf(d.box.Addr()).same)
	if err != nil {
		return err
	}
	for _, e := range elems {
		subnet, name, err := decodeSame(e)
		if err != nil || !subnet.Contains(d.box.Addr()) {
			continue
		}
		if d.out.name == name {
			return nil
		}
		if d.out.index == 0 {
			for _, l := range d.links {
				if l.name == name {
					d.out = l
					return nil
				}
			}
			d.add(CauseLinkDown, true, "link "+name, "the link %s of the box's network does not exist.", name)
			return nil
		}
	}
	if d.out.index != 0 {
		d.add(CauseNoNetwork, false, "link "+d.out.name, "the link %s of the box %v has no network with its address: AddNetwork lets visitors in, and makes the host forward.", d.out.name, d.box.Addr())
	}
	return nil
}

// findVisitorsLink finds the link that visitors come in by: the one towards the
// visitor, the one towards the default route, or the only other one.
func (d *diagnosis) findVisitorsLink(ctx context.Context) error {
	towards := d.hints.From
	if !towards.IsValid() {
		towards = netip.MustParseAddr("192.0.2.1") // for documentation: it is nobody's, so that the default route is taken
		if d.port.Host.Addr().Is6() {
			towards = netip.MustParseAddr("2001:db8::1")
		}
	}
	h, err := d.n.route(ctx, towards)
	if err == nil && h.kind == unix.RTN_UNICAST {
		d.in = d.link(h.link)
	}
	return err
}

func (d *diagnosis) link(index int) linkConf {
	for _, l := range d.links {
		if l.index == index {
			return l
		}
	}
	return linkConf{}
}

// lookAtReversePath looks for links that drop packets whose sender the host would
// answer by another one (rp_filter 1).
func (d *diagnosis) lookAtReversePath(ctx context.Context) error {
	if d.local || d.port.Host.Addr().Is6() || d.in.index == 0 {
		return nil
	}
	all, err := d.conf4(ctx, "all", "rp_filter")
	if err != nil {
		return err
	}
	for _, l := range d.links {
		if !l.has4 || l.port || l.index == d.in.index || l.index == d.out.index {
			continue
		}
		own, err := d.conf4(ctx, l.name, "rp_filter")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if max(all, own) == "1" { // the greater of the two holds; 2 is loose
			who := "visitors who are not on the link itself"
			if d.hints.From.IsValid() {
				who = d.hints.From.String()
			}
			d.add(CauseReversePath, false, "link "+l.name, "if %s come in by %s, they are dropped, because the host would answer by %s: net.ipv4.conf.%s.rp_filter = 2 lets them in.", who, l.name, d.in.name, l.name)
		}
	}
	return nil
}

// lookAtForwarding looks whether the host forwards what comes in by the visitors'
// link, and the answers from the box's.
func (d *diagnosis) lookAtForwarding(ctx context.Context) error {
	if d.local {
		if d.out.index != 0 && d.box.Addr().Is4() && !d.out.localnet {
			d.add(CauseLocalnetOff, true, "link "+d.out.name, "net.ipv4.conf.%s.route_localnet is 0: what comes from 127.0.0.0/8 does not leave by it. EnsureNetwork sets it.", d.out.name)
		}
		return nil
	}
	for _, l := range []linkConf{d.in, d.out} {
		if l.index == 0 {
			continue
		}
		on := l.forwarding
		key := fmt.Sprintf("net.ipv4.conf.%s.forwarding", l.name)
		if d.port.Host.Addr().Is6() {
			key = "net.ipv6.conf.all.forwarding"
			var err error
			if on, err = d.forwards6(ctx, l.name); err != nil {
				return err
			}
		}
		if !on {
			d.add(CauseForwardingOff, true, "link "+l.name, "the host does not forward what comes in by %s (%s is 0): EnsureNetwork and Keep switch it on.", l.name, key)
		}
	}
	return nil
}

// forwards6 reports whether the host forwards IPv6 packets that come in by a link.
func (d *diagnosis) forwards6(ctx context.Context, link string) (bool, error) {
	all, err := d.n.ns.Sysctl(ctx, "net/ipv6/conf/all/forwarding")
	if err != nil || all != "0" {
		return err == nil, err
	}
	force, err := d.n.ns.Sysctl(ctx, "net/ipv6/conf/"+link+"/"+forceForwarding)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return force == "1", err
}

func (d *diagnosis) conf4(ctx context.Context, link, name string) (string, error) {
	v, err := d.n.ns.Sysctl(ctx, "net/ipv4/conf/"+link+"/"+name)
	return strings.TrimSpace(v), err
}

// lookAtLink looks whether the box's link is up, and whether it answers for its
// address.
func (d *diagnosis) lookAtLink(ctx context.Context) error {
	if d.out.index == 0 {
		return nil
	}
	c, err := d.n.ns.Exchange(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	var flags uint32
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(d.out.index))
	err = c.Call(ctx, nl.Request{Type: unix.RTM_GETLINK, Body: body}, func(m nl.Message) (err error) {
		_, flags, err = decodeLink(m.Body)
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case flags&unix.IFF_UP == 0:
		d.add(CauseLinkDown, true, "link "+d.out.name, "the link %s to the box is down.", d.out.name)
	case flags&unix.IFF_LOWER_UP == 0:
		d.add(CauseLinkDown, true, "link "+d.out.name, "the link %s to the box has no carrier: its other end is down, or no port of the bridge is up.", d.out.name)
	}
	return d.lookAtNeighbour(ctx, c)
}

func (d *diagnosis) lookAtNeighbour(ctx context.Context, c *nl.Conn) error {
	a := d.box.Addr()
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = unix.AF_INET
	if a.Is6() {
		body[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(body[4:], uint32(d.out.index)) // struct ndmsg
	body = nl.AppendAttr(body, unix.NDA_DST, a.AsSlice())
	var state uint16
	err := c.Call(ctx, nl.Request{Type: unix.RTM_GETNEIGH, Body: body}, func(m nl.Message) error {
		if len(m.Body) < unix.SizeofNdMsg {
			return errors.New("malformed reply: a neighbour without its header")
		}
		state = binary.NativeEndian.Uint16(m.Body[8:])
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was not asked for yet
	}
	if state&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0 {
		d.add(CauseNeighbourFailed, state&unix.NUD_FAILED != 0, "address "+a.String(), "nobody on %s answers for the box's address %v: the box is gone, its link is down, or it has another address.", d.out.name, a)
	}
	return err
}
