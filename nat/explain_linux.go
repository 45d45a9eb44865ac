package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Explain looks for reasons why a published port does not answer. Of the port,
// Proto and Host are required, and Host names an address and one port as visitors
// use them; Box and Owner may be left out, and what is given is compared with what
// is published. It only reads, and only what this host shows: the way to the host,
// the visitor's side and rules of iptables-legacy are not looked at.
//
// Errors: os.ErrInvalid for a port that cannot be published. What could not be
// read is an error, together with the causes that were found.
func (n *NAT) Explain(ctx context.Context, port Port, hints Hints) (Causes, error) {
	const op = "nat.Explain"
	subject := fmt.Sprintf("%v %v", port.Proto, port.Host)
	err := port.Proto.check()
	if err == nil {
		err = checkEnd("host", port.Host, true)
	}
	if err == nil && port.Box.IsValid() && port.Box.Addr().Is4() != port.Host.Addr().Is4() {
		err = refuse.Input("the host address %v and the box address %v are of different families", port.Host.Addr(), port.Box.Addr())
	}
	if err == nil && hints.From.IsValid() && hints.From.Is4() != port.Host.Addr().Is4() {
		err = refuse.Input("the visitor %v is of another family than %v", hints.From, port.Host.Addr())
	}
	if err != nil {
		return nil, n.fail(op, subject, err)
	}
	c, err := n.conn()
	if err != nil {
		return nil, n.fail(op, subject, err)
	}
	d := diagnosis{n: n, c: c, port: port, hints: hints, box: port.Box, local: port.Host.Addr().IsLoopback()}
	for _, look := range []func(context.Context) error{
		d.lookAtTable, d.lookAtWay, d.lookAtRules, d.lookAtReversePath, d.lookAtFlows, d.lookAtForwarding, d.lookAtLink, d.lookAtBridge, d.lookAtListener,
	} {
		err = errors.Join(err, look(ctx))
	}
	return d.causes, n.fail(op, subject, err)
}

// diagnosis is an Explain under way.
type diagnosis struct {
	n      *NAT
	c      nft.Conn
	port   Port
	hints  Hints
	local  bool // the visitors are on the host itself
	causes Causes

	there     bool           // the table is
	published bool           // the port is
	box       netip.AddrPort // where it leads; invalid if that is not known

	links []linkConf
	in    linkConf // by which visitors come; index 0 if that is not known
	out   linkConf // by which the box is reached
}

func (d *diagnosis) add(kind CauseKind, certain bool, subject, format string, args ...any) {
	d.causes = append(d.causes, Cause{Kind: kind, Subject: subject, Text: fmt.Sprintf(format, args...), Certain: certain})
}

// lookAtTable looks whether the port is published, and where it leads.
func (d *diagnosis) lookAtTable(ctx context.Context) error {
	n := d.n
	comment, err := d.c.TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		d.add(CauseTableMissing, true, n.String(), "the table inet %s is not there: something removed it. Open, Sync or Keep bring it back.", n.table)
		return nil
	}
	if err != nil {
		return err
	}
	d.there = true
	intact := comment == skeletonComment
	if intact {
		if intact, err = d.c.Holds(ctx, skeleton(n.table)); err != nil {
			return err
		}
	}
	if !intact {
		d.add(CauseTableDamaged, false, n.String(), "the rules of the table inet %s are not as they should be: Sync or Keep build it anew.", n.table)
	}
	held, err := n.list(ctx, d.c)
	if err != nil {
		return err
	}
	want := d.port.claim()
	want.hi = want.lo
	for _, p := range held {
		if !p.claim().meets(want) || !p.claim().wild() && p.Host.Addr() != d.port.Host.Addr() {
			continue
		}
		leads := netip.AddrPortFrom(p.Box.Addr(), p.Box.Port()+want.lo-p.Host.Port())
		if d.box.IsValid() && d.box != leads || d.port.Owner != "" && d.port.Owner != p.Owner {
			d.add(CauseLeadsElsewhere, true, p.Port.String(), "the port leads to %v, published by %q.", leads, p.Owner)
		}
		d.box, d.published = leads, true
		return nil
	}
	d.add(CauseNotPublished, true, d.port.Host.String(), "%v %v is not published.", d.port.Proto, d.port.Host)
	return nil
}

// lookAtFlows looks for flows that were decided before the port led to where it
// does.
func (d *diagnosis) lookAtFlows(ctx context.Context) error {
	if !d.published {
		return nil
	}
	table, err := d.n.flows()
	if err != nil {
		return err
	}
	stale, err := table.List(ctx, func(f *ct.Flow) bool {
		return f.Orig.Proto == uint8(d.port.Proto) && f.Orig.Dst.Port() == d.port.Host.Port() &&
			f.Orig.Dst.Addr().Is4() == d.port.Host.Addr().Is4() &&
			(d.port.Host.Addr().IsUnspecified() || f.Orig.Dst.Addr() == d.port.Host.Addr()) &&
			(!d.hints.From.IsValid() || f.Orig.Src.Addr() == d.hints.From) &&
			f.Reply.Src != d.box && !(d.port.Proto == TCP && f.Answered())
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range stale {
		local, err := d.n.isLocal(ctx, stale[i].Orig.Dst.Addr())
		if err != nil {
			return err
		}
		if local {
			f := newFlow(&stale[i])
			d.add(CauseStaleFlow, d.hints.From.IsValid(), "flow "+f.String(),
				"the flow %v began before the port led to %v and does not follow it: Publish and Sync end such flows, or it ends %v after its last packet.", f, d.box, f.Timeout)
			break // one for all
		}
	}
	return nil
}

// lookAtBridge looks whether bridged packets pass the firewall while bridge ports
// are kept apart: a box then does not reach its sibling's port by way of the host.
func (d *diagnosis) lookAtBridge(ctx context.Context) error {
	key := "net.bridge.bridge-nf-call-iptables"
	if d.port.Host.Addr().Is6() {
		key = "net.bridge.bridge-nf-call-ip6tables"
	}
	on, err := d.n.ns.Sysctl(ctx, key)
	if errors.Is(err, os.ErrNotExist) || err == nil && on != "1" {
		return nil
	}
	if err != nil {
		return err
	}
	for _, l := range d.links {
		if l.isolated && l.master == d.out.index && d.out.index != 0 {
			d.add(CauseBridgeFilter, false, "link "+l.name,
				"%s is 1 and the bridge port %s is isolated: boxes on the bridge %s do not reach each other's published ports. Set the one to 0 or end the other.", key, l.name, d.out.name)
			return nil
		}
	}
	return nil
}

// lookAtListener looks whether a program in the box waits for visitors.
func (d *diagnosis) lookAtListener(ctx context.Context) error {
	if d.hints.Box == nil || !d.box.IsValid() {
		return nil
	}
	all, told, err := listeners(ctx, d.hints.Box, d.port.Proto, 0)
	if err != nil || !told { // that no socket is shown means nothing then
		return err
	}
	want := claim{d.port.Proto, d.box.Addr(), d.box.Port(), d.box.Port()}
	subject := fmt.Sprintf("%v %v", d.port.Proto, d.box)
	others := ""
	for _, l := range all {
		if l.meets(want) {
			return nil
		}
		if l.claim.lo == want.lo {
			others = l.claim.addr.String()
		}
	}
	if others == "" {
		d.add(CauseNoListener, true, subject, "no program in the box listens on %v port %d.", d.port.Proto, d.box.Port())
	} else {
		d.add(CauseNoListener, true, subject, "the program in the box listens on %v only, not on %v.", others, d.box.Addr())
	}
	return nil
}
