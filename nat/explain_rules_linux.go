package nat

import (
	"context"
	"errors"
	"math"
	"os"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/trace"
	"golang.org/x/sys/unix"
)

// dstnat is the priority at which destinations are translated (NF_IP_PRI_NAT_DST).
const dstnat = -100

// lookAtRules follows a visitor's first packet through the rules of other tables, before and after
// our translation.
func (d *diagnosis) lookAtRules(ctx context.Context) (err error) {
	if d.rules == nil {
		if d.rules, err = trace.Read(ctx, d.c, d.isOwn); err != nil {
			return err
		}
	}
	if d.rules.Empty() {
		return nil
	}
	host := d.port.Host
	before := trace.Packet{
		V6: host.Addr().Is6(), In: trace.Link{Index: d.in.Index, Name: d.in.Name},
		Src: d.hints.From, Proto: uint8(d.port.Proto), Dport: host.Port(), Local: true, Returns: d.in.Index != 0,
	}
	if !host.Addr().IsUnspecified() {
		before.Dst = host.Addr()
	}
	after := before
	after.Dst, after.Dport, after.Local, after.Translated = d.box.Addr(), d.box.Port(), false, true
	after.Out = trace.Link{Index: d.out.Index, Name: d.out.Name}

	entry := uint32(unix.NF_INET_PRE_ROUTING)
	if d.local {
		entry = unix.NF_INET_LOCAL_OUT
		before.In, after.In = trace.Link{}, trace.Link{}
		before.Returns, after.Returns = false, false
		before.Out, before.Src = trace.Link{Index: 1, Name: "lo"}, host.Addr()
		after.Src = host.Addr()
	}
	type step struct {
		hook   uint32
		lo, hi int32
		packet trace.Packet
	}
	steps := []step{{entry, math.MinInt32, dstnat, before}}
	if d.box.IsValid() && d.out.Index != 0 {
		steps = append(steps, step{entry, dstnat + 1, math.MaxInt32, after})
		if !d.local {
			steps = append(steps, step{unix.NF_INET_FORWARD, math.MinInt32, math.MaxInt32, after})
		}
		after.In = trace.Link{} // not shown to postrouting everywhere
		steps = append(steps, step{unix.NF_INET_POST_ROUTING, math.MinInt32, math.MaxInt32, after})
	}
	for _, s := range steps {
		found, err := d.rules.Trace(ctx, s.hook, s.lo, s.hi, s.packet)
		if err != nil {
			return err
		}
		for _, o := range found {
			if err := d.blame(ctx, s.hook, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// blame adds the cause for a rule of another table.
func (d *diagnosis) blame(ctx context.Context, hook uint32, o trace.Outcome) error {
	if o.DNAT {
		// The kernel runs chains of one priority in the order in which they were made.
		d.add(CauseForeignDNAT, o.Certain && o.Priority < dstnat, o.String(), "%v translates the destination before our table is asked.", o)
		return nil
	}
	if !o.Certain {
		// Another table of this library drops packets with a source of its boxes from elsewhere,
		// and what its networks are closed for. That a visitor forges a source needs no mention.
		if sibling, err := d.isSibling(ctx, o.Place); err != nil || sibling {
			return err
		}
	}
	what, iface := "connections to the port", d.out.Name
	if d.outward {
		what, iface = "what the box begins", d.in.Name
	}
	mend, err := d.mend(ctx, hook, o, iface)
	if err != nil {
		return err
	}
	d.add(CauseForeignDrop, o.Certain, o.String(), "%v drops %s: what one table drops, no other can let through; %s.", o, what, mend)
	return nil
}

// isSibling reports whether a chain is in another table of this library.
func (d *diagnosis) isSibling(ctx context.Context, at nft.Place) (bool, error) {
	if at.Family != unix.NFPROTO_INET {
		return false, nil
	}
	comment, err := d.c.TableComment(ctx, at.Table)
	if errors.Is(err, os.ErrNotExist) { // it was removed meanwhile
		return false, nil
	}
	_, ours := versionOf(comment)
	return ours, err
}

// The tables of firewalld with its backend nftables, and that of its panic mode, which a reload
// goes through.
const (
	firewalldTable = "firewalld"
	firewalldPanic = "firewalld_policy_drop"
)

// mend says how the program whose table drops packets is brought to accept them.
func (d *diagnosis) mend(ctx context.Context, hook uint32, o trace.Outcome, iface string) (string, error) {
	decides := hook == unix.NF_INET_FORWARD || hook == unix.NF_INET_LOCAL_IN
	switch {
	case o.Family == unix.NFPROTO_INET && o.Table == firewalldPanic:
		return "that is firewalld's panic mode, which `firewall-cmd --panic-off` ends", nil
	case o.Family == unix.NFPROTO_INET && o.Table == firewalldTable && decides:
		return "in firewalld's zone trusted it is accepted: `firewall-cmd --permanent --zone=trusted --add-interface=" + iface + "`, and `firewall-cmd --reload`", nil
	case o.Table == "filter" && o.Family != unix.NFPROTO_INET && decides:
		return d.mendIptables(ctx, hook, o, iface)
	}
	return "an accept before it lets them through", nil
}

// mendIptables is mend for the table filter of iptables.
func (d *diagnosis) mendIptables(ctx context.Context, hook uint32, o trace.Outcome, iface string) (string, error) {
	chain, ufw := "FORWARD", "forward"
	if hook == unix.NF_INET_LOCAL_IN {
		chain, ufw = "INPUT", "input"
	}
	prefix := "ufw-before-"
	if o.Family == unix.NFPROTO_IPV6 {
		prefix = "ufw6-before-"
	}
	rules, err := d.c.RulesIn(ctx, nft.Place{Family: o.Family, Table: "filter", Chain: chain})
	if err != nil {
		return "", err
	}
	whose := ""
	if trace.LeadsAllTo(rules, prefix+ufw) {
		whose = "it is a policy of ufw, and "
	}
	if hook == unix.NF_INET_FORWARD {
		if lacks, err := d.n.lacksAccepts(ctx, d.c, o.Family, iface); err != nil || lacks {
			return whose + "AcceptForward adds an accept before it", err
		}
	} else if whose != "" {
		return whose + "`ufw allow in on " + iface + "` accepts it", nil
	}
	return whose + "an accept before it lets them through", nil
}
