package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/portlock"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/internal/trace"
)

// Explain looks for reasons why a published port does not answer. It needs the Proto and Host of
// the port, where Host is an address and one port as visitors use them. Box and Owner are optional,
// and compared with what is published. [NAT.ExplainOut] is for connections that a box begins.
//
// Explain only reads, and only on this host. It does not see the network between the visitor and
// the host. It follows the first packet through the chains of the families ip, ip6 and inet at the
// hooks prerouting to postrouting. It does not see rules that drop only replies, chains of the
// families netdev and bridge, and the hook ingress. Rules of iptables-legacy cannot be read; if
// there are any and no other cause is certain, Explain reports that.
//
// Errors: os.ErrInvalid for a port that cannot be published. If something could not be read,
// Explain returns the error and the causes that it found.
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
	if err == nil && hints.ForeignOnly {
		err = checkEnd("box", port.Box, false)
	}
	if err != nil {
		return nil, n.fail(op, subject, err)
	}
	c, err := n.conn()
	if err != nil {
		return nil, n.fail(op, subject, err)
	}
	d := diagnosis{n: n, c: c, port: port, hints: hints, box: port.Box, local: port.Host.Addr().IsLoopback()}
	if hints.ForeignOnly {
		err = d.lookAtForeign(ctx)
		return d.causes, n.fail(op, subject, err)
	}
	for _, look := range []func(context.Context) error{
		d.lookAtTable, d.lookAtWay, d.lookAtSource, d.lookAtRules, d.lookAtPolicyIn, d.lookAtReversePath, d.lookAtFlows, d.lookAtForwarding, d.lookAtLink, d.lookAtBridge, d.lookAtListener, d.lookAtLegacy,
	} {
		err = errors.Join(err, look(ctx))
	}
	return d.causes, n.fail(op, subject, err)
}

// lookAtForeign looks at the rules of other tables, if there are any, and keeps no other causes.
func (d *diagnosis) lookAtForeign(ctx context.Context) (err error) {
	if d.rules, err = trace.Read(ctx, d.c, d.isOwn); err != nil || d.rules.Empty() {
		return err
	}
	if err = d.lookAtWay(ctx); err == nil {
		err = d.lookAtRules(ctx)
	}
	d.causes = slices.DeleteFunc(d.causes, func(c Cause) bool { return c.Kind != CauseForeignDrop && c.Kind != CauseForeignDNAT })
	return err
}

// diagnosis is one run of Explain or ExplainOut.
type diagnosis struct {
	n      *NAT
	c      nft.Conn
	port   Port
	hints  Hints
	local  bool // the visitors are on the host itself
	causes Causes

	outward bool // for ExplainOut: the box begins
	toHost  bool // and connects to the host itself

	there     bool           // the table exists
	published bool           // the port is published
	box       netip.AddrPort // its destination; invalid if unknown
	far       *NetworkState  // that has the box in Trusted, if the box is on another host

	links []rtnl.Link
	in    rtnl.Link // the ingress link of visitors; index 0 if unknown
	out   rtnl.Link // the link to the box

	rules *trace.Ruleset // of other tables; nil until they are read
}

func (d *diagnosis) add(kind CauseKind, certain bool, subject, format string, args ...any) {
	d.causes = append(d.causes, Cause{Kind: kind, Subject: subject, Text: fmt.Sprintf(format, args...), Certain: certain})
}

// isOwn reports whether a table is this one, or follows from it. The chain that adds flows to the flowtable
// drops nothing.
func (d *diagnosis) isOwn(family byte, table string) bool { return d.n.isPart(family, table) }

// lookAtTable finds out whether the port is published, and for which box.
func (d *diagnosis) lookAtTable(ctx context.Context) error {
	n := d.n
	comment, err := d.c.TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		d.add(CauseTableMissing, true, n.String(), "the table inet %s is not there: something removed it. Open, Sync or Maintain bring it back.", n.table)
		return nil
	}
	if err != nil {
		return err
	}
	d.there = true
	intact := comment == skeletonComment
	if intact {
		if intact, err = n.holdsRules(ctx, d.c); err != nil {
			return err
		}
	}
	if !intact {
		d.add(CauseTableDamaged, false, n.String(), "the rules of the table inet %s are not as they should be: Sync or Maintain rebuild it.", n.table)
	}
	held, err := n.list(ctx, d.c)
	if err != nil {
		return err
	}
	want := d.port.claim()
	want.Last = want.First
	for _, p := range held {
		if !p.claim().Overlaps(want) || !p.claim().Wildcard() && p.Host.Addr() != d.port.Host.Addr() {
			continue
		}
		leads := netip.AddrPortFrom(p.Box.Addr(), p.Box.Port()+want.First-p.Host.Port())
		if d.box.IsValid() && d.box != leads || d.port.Owner != "" && d.port.Owner != p.Owner {
			d.add(CauseLeadsElsewhere, true, p.Port.String(), "the port leads to %v, published by %q.", leads, p.Owner)
		}
		d.box, d.published = leads, true
		return nil
	}
	d.add(CauseNotPublished, true, d.port.Host.String(), "%v %v is not published.", d.port.Proto, d.port.Host)
	return nil
}

// lookAtFlows finds flows that are older than the mapping of the port.
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

// lookAtBridge finds isolated bridge ports where bridged packets pass the firewall. A box then does
// not reach a sibling's published port.
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
		if d.hints.From.IsValid() && d.hints.From == d.box.Addr() && l.Master == d.out.Index && d.out.Index != 0 && !l.Hairpin {
			d.add(CauseBridgeFilter, false, "link "+l.Name,
				"%s is 1 and the bridge port %s has no hairpin mode: if it is the box's, the bridge does not send the box's packets to its own published port back to it. Set the one to 0 or the other on.", key, l.Name)
			break // one for all
		}
	}
	for _, l := range d.links {
		if l.Isolated && l.Master == d.out.Index && d.out.Index != 0 {
			d.add(CauseBridgeFilter, false, "link "+l.Name,
				"%s is 1 and the bridge port %s is isolated: boxes on the bridge %s do not reach each other's published ports. Set the one to 0 or end the other.", key, l.Name, d.out.Name)
			return nil
		}
	}
	return nil
}

// lookAtListener finds out whether a program in the box listens.
func (d *diagnosis) lookAtListener(ctx context.Context) error {
	if d.hints.Box == nil || !d.box.IsValid() {
		return nil
	}
	all, known, err := portlock.Listeners(ctx, d.hints.Box, uint8(d.port.Proto), 0)
	if err != nil || !known { // the box may have sockets that are not shown
		return err
	}
	want := portlock.Range{Proto: uint8(d.port.Proto), Addr: d.box.Addr(), First: d.box.Port(), Last: d.box.Port()}
	subject := fmt.Sprintf("%v %v", d.port.Proto, d.box)
	others := ""
	for _, l := range all {
		if l.Overlaps(want) {
			return nil
		}
		if l.Range.First == want.First {
			others = l.Range.Addr.String()
		}
	}
	if others == "" {
		d.add(CauseNoListener, true, subject, "no program in the box listens on %v port %d.", d.port.Proto, d.box.Port())
	} else {
		d.add(CauseNoListener, true, subject, "the program in the box listens on %v only, not on %v.", others, d.box.Addr())
	}
	return nil
}
