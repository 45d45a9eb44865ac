//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// table is the name of the table of the boxes' networks and policies.
const table = "boxwire-sandbox"

// linkPrefix begins the names of the boxes' links on the host.
const linkPrefix = "sandbox"

// box is a namespace behind a pair of links. Its network is the pair alone, so that it has no
// neighbour but the host.
type box struct {
	host  *netns.NS
	ns    *netns.NS
	gw    *nat.NAT
	alone bool   // no other run has this host
	link  string // on the host
	addrs []netip.Addr
	began time.Time
	state nat.State // what the table has for this box
}

// newBox makes the box: all of it, or nothing. Its policy is in force before it has a link.
func newBox(ctx context.Context, host *netns.NS, o *options) (b *box, err error) {
	b = &box{host: host, alone: o.rootless, began: time.Now()}
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, b.removeLocked(context.WithoutCancel(ctx)))
			b = nil
		}
	}()
	if b.gw, err = nat.Open(ctx, host, nat.Options{Name: table, NoReserve: true}); err != nil {
		return b, err
	}
	if err := sweep(ctx, host, b.gw); err != nil {
		return b, err
	}
	if b.ns, err = netns.New(ctx); err != nil {
		return b, err
	}
	subnets, err := b.choose(ctx, o.subnet)
	if err != nil {
		return b, err
	}
	owner, err := ownMark()
	if err != nil {
		return b, err
	}
	b.state = nat.State{
		Networks: []nat.Network{{Interface: b.link, Subnets: subnets, Masquerade: true, Strict: true}},
		Policies: []nat.Policy{{Box: b.addrs, Owner: owner, Egress: &nat.Rules{Allow: o.allow.rules}, Refuse: true}},
		Owners:   func(other string) bool { return other == owner },
	}
	if err := b.gw.Sync(ctx, b.state); err != nil {
		return b, err
	}
	if err := b.connect(ctx, subnets); err != nil {
		return b, err
	}
	if err := b.gw.Sync(ctx, b.state); err != nil { // once more: the link has to forward
		return b, err
	}
	if o.accept {
		return b, b.gw.AcceptForward(ctx)
	}
	return b, nil
}

// connect makes the pair of links, with the box's addresses and its routes.
func (b *box) connect(ctx context.Context, subnets []netip.Prefix) error {
	near := link.Spec{Name: b.link, Up: true, MAC: stableMAC(b.link)}
	far := link.Spec{NS: b.ns, Name: "eth0", Up: true}
	var routes []route.Route
	for i, s := range subnets {
		near.Addrs = append(near.Addrs, netip.PrefixFrom(gateway(s), s.Bits()))
		far.Addrs = append(far.Addrs, netip.PrefixFrom(b.addrs[i], s.Bits()))
		routes = append(routes, route.Default(gateway(s)))
	}
	near.Kind = link.Veth{Peer: far}
	if _, err := link.Create(ctx, b.host, near); err != nil {
		return err
	}
	return route.Add(ctx, b.ns, routes...)
}

// keep keeps the box's network and policy in the firewall while its command runs, also across a
// flush of the ruleset. It returns a function that ends it.
func (b *box) keep(ctx context.Context, g *grants, out io.Writer) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		said := ""
		for repair, err := range b.gw.Maintain(ctx, func() nat.State { return b.state }) {
			if err == nil && repair.Reason != nat.ReasonStarted {
				err = g.again(ctx)
			}
			if err != nil && ctx.Err() == nil && said != err.Error() {
				said = err.Error()
				fmt.Fprintln(out, "sandbox: keeping the firewall:", oneLine(err))
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// remove ends what the command has left running, and takes the box away.
func (b *box) remove(ctx context.Context) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return b.removeLocked(ctx)
}

func (b *box) removeLocked(ctx context.Context) error {
	var errs []error
	if b.ns != nil {
		errs = append(errs, endAll(ctx, b.ns))
	}
	if len(b.state.Policies) > 0 {
		errs = append(errs, removeNetwork(ctx, b.host, b.gw, b.link, b.addrs))
	}
	if b.gw != nil {
		errs = append(errs, dropTable(ctx, b.gw), b.gw.Close())
	}
	if b.ns != nil {
		errs = append(errs, b.ns.Close())
	}
	return errors.Join(errs...)
}

// boxBits is the length of a box's IPv4 subnet.
const boxBits = 30

// choose chooses the box's link and addresses: the first that are free. It returns its subnets.
func (b *box) choose(ctx context.Context, base netip.Prefix) ([]netip.Prefix, error) {
	taken, err := link.ListAddrs(ctx, b.host)
	if err != nil {
		return nil, err
	}
	// A kernel that was started without IPv6 has no such setting.
	off, err := b.host.Sysctl(ctx, "net/ipv6/conf/default/disable_ipv6")
	has6 := err == nil && off == "0"
	for n := range 1 << min(boxBits-base.Bits(), 16) {
		subnets := []netip.Prefix{nth4(base, n)}
		if has6 {
			subnets = append(subnets, nth6(n))
		}
		b.link = fmt.Sprint(linkPrefix, n)
		_, err := link.Get(ctx, b.host, b.link)
		if err == nil || overlap(subnets, taken) {
			continue
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		b.addrs = nil
		for _, s := range subnets {
			b.addrs = append(b.addrs, gateway(s).Next())
		}
		return subnets, nil
	}
	return nil, fmt.Errorf("the host has addresses in all of %v; choose another with -subnet", base)
}

// gateway is the host's address in a subnet: the first one. The box has the second.
func gateway(subnet netip.Prefix) netip.Addr { return subnet.Addr().Next() }

// nth4 is the IPv4 subnet of the box n.
func nth4(base netip.Prefix, n int) netip.Prefix {
	a := base.Addr().As4()
	for i, shift := 3, n<<(32-boxBits); shift > 0; i, shift = i-1, shift>>8 {
		a[i] |= byte(shift)
	}
	return netip.PrefixFrom(netip.AddrFrom4(a), boxBits)
}

// nth6 is the IPv6 subnet of the box n.
func nth6(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x89, 6: byte(n >> 8), 7: byte(n)}), 64)
}

func overlap(subnets []netip.Prefix, taken []link.Addr) bool {
	for _, s := range subnets {
		for _, a := range taken {
			if a.Prefix.Masked().Overlaps(s) {
				return true
			}
		}
	}
	return false
}

// stableMAC is a locally administered hardware address made of a name. It distinguishes
// a link of this program from one that was made by hand.
func stableMAC(name string) net.HardwareAddr {
	h := fnv.New64a()
	h.Write([]byte(name))
	sum := h.Sum(nil)
	return net.HardwareAddr{0x02, sum[1], sum[2], sum[3], sum[4], sum[5]}
}
