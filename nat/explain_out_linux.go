package nat

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/internal/trace"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// ExplainOut looks for reasons why a box gets no answer from an external address, or from an address
// of the host. The box is named by its address. The zero Addr for to stands for an address that the
// default route leads to. The limits of [NAT.Explain] apply. A policy that lets the box reach the
// address by some protocols and ports only is a cause that is not certain, which names the rules.
// After [NAT.AddNetwork] it shows whether another firewall, e.g. Docker's, drops what the boxes send:
// a cause of the kind [CauseForeignDrop].
//
// Errors: os.ErrInvalid for an address that is invalid or of another family than the box's. If
// something could not be read, ExplainOut returns the error and the causes that it found.
func (n *NAT) ExplainOut(ctx context.Context, box, to netip.Addr) (Causes, error) {
	const op = "nat.ExplainOut"
	subject := "box " + box.String()
	var err error
	switch {
	case !box.IsValid() || box.IsUnspecified() || box.Is4In6():
		err = refuse.Input("the box has no address")
	case to.IsValid() && to.Is4() != box.Is4():
		err = refuse.Input("the address %v is of another family than the box %v", to, box)
	}
	if err != nil {
		return nil, n.fail(op, subject, err)
	}
	c, err := n.conn()
	if err != nil {
		return nil, n.fail(op, subject, err)
	}
	d := diagnosis{n: n, c: c, outward: true, box: netip.AddrPortFrom(box, 0), hints: Hints{From: to}}
	d.port.Host = d.box
	for _, look := range []func(context.Context) error{d.lookAtWayOut, d.lookAtPolicyOut, d.lookAtRulesOut, d.lookAtForwarding, d.lookAtLegacy} {
		err = errors.Join(err, look(ctx))
	}
	return d.causes, n.fail(op, subject, err)
}

// lookAtWayOut finds the links on the box's way out, and its network.
func (d *diagnosis) lookAtWayOut(ctx context.Context) (err error) {
	if _, err = d.c.TableComment(ctx, d.n.table); err == nil {
		d.there = true
	} else if errors.Is(err, os.ErrNotExist) {
		d.add(CauseTableMissing, true, d.n.String(), "the table inet %s is not there: something removed it. Open, Sync or Maintain bring it back.", d.n.table)
	} else {
		return err
	}
	if d.links, err = readLinks(ctx, d.n.ns); err != nil {
		return err
	}
	a := d.box.Addr()
	h, err := d.n.route(ctx, a)
	if err != nil {
		return err
	}
	if h.Type == unix.RTN_UNICAST {
		d.out = d.link(h.Link()) // towards the box, as the other looks want it
	} else {
		d.add(CauseNoRoute, true, "address "+a.String(), "the host has no route to the box's address %v: no link that is up has an address of its subnet.", a)
	}
	if err := errors.Join(d.lookAtNetwork(ctx), d.lookAtLink(ctx)); err != nil {
		return err
	}
	_, way, err := d.towards(ctx, d.hints.From, a.Is6())
	if err != nil {
		return err
	}
	if d.toHost = d.hints.From.IsValid() && way.Type == unix.RTN_LOCAL; d.toHost {
		d.in, d.out = d.out, rtnl.Link{}
		return nil
	}
	if err := d.lookAtInternal(ctx); err != nil {
		return err
	}
	if way.Type != unix.RTN_UNICAST {
		what := "strangers: it has no default route"
		if d.hints.From.IsValid() {
			what = d.hints.From.String()
		}
		d.add(CauseNoRoute, true, "address "+a.String(), "the host has no route to %s.", what)
	}
	d.in, d.out = d.out, d.link(way.Link())
	return nil
}

// lookAtInternal finds out whether the box's network is Internal.
func (d *diagnosis) lookAtInternal(ctx context.Context) error {
	if !d.there {
		return nil
	}
	networks, err := d.n.ListNetworks(ctx)
	for _, w := range networks {
		if w.Interface == d.out.Name && w.Internal {
			d.add(CauseInternal, true, "link "+w.Interface, "the network of %s is Internal: its boxes reach nothing outside.", w.Interface)
		}
	}
	return err
}

// lookAtRulesOut follows the box's first packet through the rules of other tables.
func (d *diagnosis) lookAtRulesOut(ctx context.Context) error {
	if d.in.Index == 0 || d.out.Index == 0 && !d.toHost {
		return nil
	}
	rules, err := trace.Read(ctx, d.c, d.isOwn)
	if err != nil {
		return err
	}
	const https = 443 // what a box is most likely to want
	p := trace.Packet{
		V6: d.box.Addr().Is6(), In: trace.Link{Index: d.in.Index, Name: d.in.Name}, Src: d.box.Addr(), Dst: d.hints.From,
		Proto: uint8(TCP), Dport: https, Local: d.toHost, Returns: true,
	}
	hooks := []uint32{unix.NF_INET_PRE_ROUTING, unix.NF_INET_FORWARD, unix.NF_INET_POST_ROUTING}
	if d.toHost {
		hooks = []uint32{unix.NF_INET_PRE_ROUTING, unix.NF_INET_LOCAL_IN}
	}
	for _, hook := range hooks {
		if hook != unix.NF_INET_PRE_ROUTING && !d.toHost {
			p.Out = trace.Link{Index: d.out.Index, Name: d.out.Name}
		}
		if hook == unix.NF_INET_POST_ROUTING {
			p.In = trace.Link{} // not shown to postrouting everywhere
		}
		found, err := rules.Trace(ctx, hook, math.MinInt32, math.MaxInt32, p)
		if err != nil {
			return err
		}
		for _, o := range slices.DeleteFunc(found, func(o trace.Outcome) bool { return o.DNAT }) {
			if err := d.blame(ctx, hook, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookAtLegacy finds out whether there are tables of iptables-legacy, if no other cause is certain.
// Their rules cannot be read over netlink. Only the owner of the namespace can see the tables.
func (d *diagnosis) lookAtLegacy(ctx context.Context) error {
	if slices.ContainsFunc(d.causes, func(c Cause) bool { return c.Certain }) {
		return nil
	}
	tool, file := "iptables-legacy", "/proc/thread-self/net/ip_tables_names"
	if d.port.Host.Addr().Is6() {
		tool, file = "ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names"
	}
	names, err := netns.Do(ctx, d.n.ns, func(context.Context) ([]byte, error) { return os.ReadFile(file) })
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	for _, table := range strings.Fields(string(names)) {
		d.add(CauseLegacyRules, false, "table "+table+" of "+tool, "the table %s of %s may drop or translate it, and cannot be read: `%s -t %s -S` shows its rules.", table, tool, tool, table)
	}
	return err
}
