package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// route looks up the host's route to an address. It is zero if there is none.
func (n *NAT) route(ctx context.Context, a netip.Addr) (rtnl.Route, error) {
	return routeFrom(ctx, n.ns, a, netip.Addr{})
}

// routeFrom looks up the route to an address in a namespace, from src if it is valid.
func routeFrom(ctx context.Context, ns *netns.NS, a, src netip.Addr) (rtnl.Route, error) {
	r, err := rtnl.Lookup(ctx, ns, a, src)
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL, os.ErrNotExist} {
		if errors.Is(err, none) {
			return rtnl.Route{}, nil // no route, or one of a type that refuses
		}
	}
	return r, err
}

// lookAtWay finds the links on the way of visitors and of replies.
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
	if err == nil {
		err = d.findFarBox(ctx)
	}
	switch {
	case err != nil:
		return err
	case h.Type == unix.RTN_LOCAL:
		d.add(CauseNoRoute, true, "address "+a.String(), "the box's address %v is the host's own.", a)
		return nil
	case h.Type != unix.RTN_UNICAST && d.far != nil:
		d.add(CauseNoRoute, true, "address "+a.String(), "the host has no route to the box's address %v, which Network.Trusted says is on another host.", a)
	case h.Type != unix.RTN_UNICAST:
		d.add(CauseNoRoute, true, "address "+a.String(), "the host has no route to the box's address %v: no link that is up has an address of its subnet.", a)
	case h.Gateway.IsValid() && d.far == nil:
		d.add(CauseNoRoute, false, "address "+a.String(), "the box's address %v is on no link of the host, but behind the router %v.", a, h.Gateway)
	}
	d.out = d.link(h.Link())
	if d.far != nil {
		return d.lookAtFarBox(ctx)
	}
	return d.lookAtNetwork(ctx)
}

// lookAtNetwork finds out whether the box's link has a network. Without a route, the network whose
// subnet holds the box's address determines the link.
func (d *diagnosis) lookAtNetwork(ctx context.Context) error {
	if !d.there {
		return nil
	}
	f := familyOf(d.box.Addr())
	elems, err := d.c.Elements(ctx, d.n.table, f.same)
	if err != nil {
		return err
	}
	for _, e := range elems {
		own, err := decodeAddrs(item{f.same, e})
		if err != nil || !own.contains(d.box.Addr()) {
			continue
		}
		name := own.iface
		if d.out.Name == name {
			return nil
		}
		if d.out.Index == 0 {
			for _, l := range d.links {
				if l.Name == name {
					d.out = l
					return nil
				}
			}
			d.add(CauseLinkDown, true, "link "+name, "the link %s of the box's network does not exist.", name)
			return nil
		}
	}
	if d.out.Index != 0 {
		d.add(CauseNoNetwork, false, "link "+d.out.Name, "the link %s of the box %v has no network with its address: AddNetwork lets visitors in, and makes the host forward.", d.out.Name, d.box.Addr())
	}
	return nil
}

// findFarBox finds out whether the box is one of another host.
func (d *diagnosis) findFarBox(ctx context.Context) error {
	if !d.there {
		return nil
	}
	nets, err := d.n.readNetworks(ctx, d.c)
	if err != nil {
		return ignoreDamage(err)
	}
	box := d.box.Addr()
	if networkOf(nets, box) != nil {
		return nil
	}
	for i := range nets {
		if !nets[i].trusts(box) {
			continue
		}
		d.far = &nets[i]
		if _, ok := d.far.seenAs(box.Is6()); ok {
			return nil
		}
	}
	return nil
}

// lookAtFarBox finds out whether the answers of a box of another host come back.
func (d *diagnosis) lookAtFarBox(ctx context.Context) error {
	box, by := d.box.Addr(), d.far.Interface
	a, ok := d.far.seenAs(box.Is6())
	if !ok {
		d.add(CauseOtherHost, false, "network "+by, "the box %v is on another host, as Network.Trusted of %s says: it answers visitors by that host's way out, if that host lets them in. Network.VisitorSNAT has them come from an address of this host.", box, by)
		return nil
	}
	local, err := d.n.isLocal(ctx, a)
	if err == nil && !local {
		d.add(CauseAddressNotLocal, false, "address "+a.String(), "visitors come to the box %v from %v, as Network.VisitorSNAT of %s says, which is no address of the host: the box's answers come back only if the routes lead them here.", box, a, by)
	}
	return err
}

// ignoreDamage ignores that a set is missing: the table is damaged, which is a cause of its own.
func ignoreDamage(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// findVisitorsLink finds the ingress link: the one towards the visitor, the one of the default
// route, or the only other one.
func (d *diagnosis) findVisitorsLink(ctx context.Context) error {
	_, h, err := d.towards(ctx, d.hints.From, d.port.Host.Addr().Is6())
	if err == nil && h.Type == unix.RTN_UNICAST {
		d.in = d.link(h.Link())
	}
	return err
}

// strangers are addresses for documentation and benchmarks. They stand for an external address, to
// which the default route leads. The host may have one of them all the same, or be on a link with
// it.
var strangers = [2][]netip.Addr{
	{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("198.51.100.254"), netip.MustParseAddr("203.0.113.254"), netip.MustParseAddr("198.18.255.254")},
	{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:ffff::1"), netip.MustParseAddr("3fff::1")},
}

// towards looks up the route to an address, or to a stranger if it is not valid. It returns the
// address, too.
func (d *diagnosis) towards(ctx context.Context, to netip.Addr, six bool) (_ netip.Addr, h rtnl.Route, err error) {
	if to.IsValid() {
		h, err = d.n.route(ctx, to)
		return to, h, err
	}
	all := strangers[0]
	if six {
		all = strangers[1]
	}
	found := false
	for _, a := range all {
		one, err := d.n.route(ctx, a)
		switch {
		case err != nil || one.Type == unix.RTN_UNICAST && one.Gateway.IsValid():
			return a, one, err
		case !found && one.Type != unix.RTN_LOCAL: // by a link without gateways, or none
			to, h, found = a, one, true
		}
	}
	return to, h, nil
}

func (d *diagnosis) link(index int) rtnl.Link {
	for _, l := range d.links {
		if l.Index == index {
			return l
		}
	}
	return rtnl.Link{}
}

// lookAtReversePath finds links that drop packets because the route back to the source uses another
// link (rp_filter 1).
func (d *diagnosis) lookAtReversePath(ctx context.Context) error {
	if d.local || d.port.Host.Addr().Is6() || d.in.Index == 0 {
		return nil
	}
	all, err := d.conf4(ctx, "all", "rp_filter")
	if err != nil {
		return err
	}
	ours, err := d.c.Elements(ctx, d.n.table, "ifs")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, l := range d.links {
		if l.IPv4 == nil || l.IsPort() || l.Index == d.in.Index || l.Index == d.out.Index {
			continue
		}
		network := slices.ContainsFunc(ours, func(e nft.Element) bool { return nameOf(e.Key) == l.Name })
		own, err := d.conf4(ctx, l.Name, "rp_filter")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if max(all, own) != "1" { // the greater of the two holds; 2 is loose
			continue
		}
		if network {
			d.add(CauseReversePath, false, "link "+l.Name, "if the box %v is on %s, too, and answers by it, its answers are dropped, because the host reaches it by %s: net.ipv4.conf.%s.rp_filter = 2 lets them in.", d.box.Addr(), l.Name, d.out.Name, l.Name)
		} else {
			who := "visitors who are not on the link itself"
			if d.hints.From.IsValid() {
				who = d.hints.From.String()
			}
			d.add(CauseReversePath, false, "link "+l.Name, "if %s come in by %s, they are dropped, because the host would answer by %s: net.ipv4.conf.%s.rp_filter = 2 lets them in.", who, l.Name, d.in.Name, l.Name)
		}
	}
	return nil
}

// lookAtForwarding finds out whether the host forwards what comes in by the visitors' link, and
// replies from the box's link.
func (d *diagnosis) lookAtForwarding(ctx context.Context) error {
	if d.toHost {
		return nil
	}
	if d.local {
		if d.out.Index != 0 && d.box.Addr().Is4() && !d.out.IPv4.On(rtnl.RouteLocalnet) {
			d.add(CauseLocalnetOff, true, "link "+d.out.Name, "net.ipv4.conf.%s.route_localnet is 0: what comes from 127.0.0.0/8 does not leave by it. SetNetwork sets it.", d.out.Name)
		}
		return nil
	}
	for _, l := range []rtnl.Link{d.in, d.out} {
		if l.Index == 0 {
			continue
		}
		on := l.IPv4.On(rtnl.Forwarding)
		key := fmt.Sprintf("net.ipv4.conf.%s.forwarding", l.Name)
		if d.port.Host.Addr().Is6() {
			key = "net.ipv6.conf.all.forwarding"
			var err error
			if on, err = d.forwards6(ctx, l.Name); err != nil {
				return err
			}
		}
		if !on {
			d.add(CauseForwardingOff, true, "link "+l.Name, "the host does not forward what comes in by %s (%s is 0): SetNetwork switches it on.", l.Name, key)
		}
	}
	return nil
}

// forwards6 reports whether the host forwards IPv6 packets from a link.
func (d *diagnosis) forwards6(ctx context.Context, link string) (bool, error) {
	all, err := d.n.ns.Sysctl(ctx, "net/ipv6/conf/all/forwarding")
	if err != nil || all != "0" {
		return err == nil, err
	}
	force, err := d.n.ns.Sysctl(ctx, "net/ipv6/conf/"+link+"/force_forwarding")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return force == "1", err
}

func (d *diagnosis) conf4(ctx context.Context, link, name string) (string, error) {
	v, err := d.n.ns.Sysctl(ctx, "net/ipv4/conf/"+link+"/"+name)
	return strings.TrimSpace(v), err
}

// lookAtLink finds out whether the box's link is up, and whether the box answers for its address.
func (d *diagnosis) lookAtLink(ctx context.Context) error {
	if d.out.Index == 0 {
		return nil
	}
	l, err := rtnl.LinkByIndex(ctx, d.n.ns, d.out.Index)
	if err != nil {
		return err
	}
	switch {
	case l.Flags&unix.IFF_UP == 0:
		d.add(CauseLinkDown, true, "link "+d.out.Name, "the link %s to the box is down.", d.out.Name)
	case l.Flags&unix.IFF_LOWER_UP == 0:
		d.add(CauseLinkDown, true, "link "+d.out.Name, "the link %s to the box has no carrier: its other end is down, or no port of the bridge is up.", d.out.Name)
	}
	return d.lookAtNeighbour(ctx)
}

func (d *diagnosis) lookAtNeighbour(ctx context.Context) error {
	a := d.box.Addr()
	nb, err := rtnl.NeighbourOf(ctx, d.n.ns, d.out.Index, a)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was not asked for yet
	}
	if nb.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0 {
		d.add(CauseNeighbourFailed, nb.State&unix.NUD_FAILED != 0, "address "+a.String(), "no host on %s answers for the box's address %v: the box is gone, its link is down, or it has another address.", d.out.Name, a)
	}
	return err
}
