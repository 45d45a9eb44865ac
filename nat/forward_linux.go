package nat

import (
	"context"
	"errors"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// plan is what networks change of the host's links, found out before the batch is
// sent and written after.
type plan struct {
	settings []setting  // of IPv4
	four     []linkConf // the links whose IPv4 forwarding is to be set
	localnet []linkConf // the networks' links whose route_localnet is to be set
	bridged  []linkConf // the bridges among those that do not forward yet, of either family
	known    map[string]bool
	six      plan6

	// forwarded says that a network's link forwarded already, and not by a record
	// of the table: what the table guards may have been there before the table.
	forwarded bool
}

// plan reads what the table knows of the links, and plans for the networks.
func (n *NAT) plan(ctx context.Context, c nft.Conn, nets ...Network) (*plan, error) {
	f, err := n.readFlipped(ctx, c)
	if err != nil {
		return nil, err
	}
	return planLinks(ctx, n.ns, f, nets...)
}

// planLinks reads the links and finds those that do not forward as the networks
// need it. A network's link may be missing.
func planLinks(ctx context.Context, ns *netns.NS, f flipped, nets ...Network) (*plan, error) {
	links, err := readLinks(ctx, ns)
	if err != nil {
		return nil, err
	}
	own := map[string]Network{}
	var four, six bool
	for _, net := range nets {
		own[net.Interface] = net
		four = four || net.has(false)
		six = six || net.has(true)
	}
	p := &plan{known: names(f.four)}
	for _, l := range links {
		net, isOwn := own[l.name]
		if !four || !l.has4 || l.port && !isOwn {
			continue
		}
		p.forwarded = p.forwarded || isOwn && l.forwarding && !p.known[l.name]
		if !l.forwarding {
			p.settings = append(p.settings, setting{l, confForwarding, 1})
			p.four = append(p.four, l)
		}
		if isOwn && net.has(false) && !l.localnet {
			p.localnet = append(p.localnet, l)
			p.settings = append(p.settings, setting{l, confRouteLocalnet, 1})
		}
	}
	if six {
		p.six, err = netns.Do(ctx, ns, func(context.Context) (plan6, error) {
			return makePlan6(links, own, names(f.six), hasForce())
		})
		recorded := names(append(slices.Clone(f.six), p.six.record...))
		for _, l := range links {
			net, isOwn := own[l.name]
			p.forwarded = p.forwarded || isOwn && net.has(true) && !recorded[l.name]
		}
	}
	flips := names(p.six.record)
	for _, l := range p.four {
		flips[l.name] = true
	}
	bridged := bridgedNames(f.bridged)
	for _, l := range links {
		if l.bridge && flips[l.name] && !bridged[l.name] {
			p.bridged = append(p.bridged, l)
		}
	}
	return p, err
}

// record adds the plan's facts to the batch. One that the table knows stays.
func (p *plan) record(b *nft.Batch) {
	for _, it := range p.facts() {
		b.EnsureElements(it.set, it.elem)
	}
}

// facts are what the links were before: those that the table does not know yet,
// for what was true when a link was first recorded is what it is set back to.
func (p *plan) facts() (items []item) {
	for _, l := range p.four {
		if !p.known[l.name] {
			items = append(items, item{families[0].flipped, nft.Element{Key: ifname(l.name)}})
		}
	}
	for _, e := range p.six.record {
		items = append(items, item{families[1].flipped, e})
	}
	for _, l := range p.localnet {
		items = append(items, item{"localnet", nft.Element{Key: ifname(l.name)}})
	}
	for _, l := range p.bridged {
		items = append(items, item{"bridged", nft.Element{Key: slices.Concat(ifname(l.name), ifname(l.name))}})
	}
	return items
}

// writes reports whether there is a setting to write.
func (p *plan) writes() bool { return len(p.settings)+len(p.six.writes) > 0 }

// apply writes the settings.
func (p *plan) apply(ctx context.Context, ns *netns.NS) error {
	if err := setConf4(ctx, ns, p.settings); err != nil {
		return err
	}
	return writeAll(ctx, ns, p.six.writes)
}

// forwardLinks makes links forward for the networks, as adding them did with those
// that were there, and reports whether there were any that did not.
func (n *NAT) forwardLinks(ctx context.Context, nets []Network) (bool, error) {
	nets, _, err := checkNetworks(nets)
	if err != nil || len(nets) == 0 {
		return false, err
	}
	p := new(plan)
	// In turn: the record of a link that RemoveNetwork sets back in between would be
	// gone, and the link would forward for strangers.
	err = n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error {
		err := c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
			var err error
			if p, err = n.plan(ctx, c, nets...); err != nil {
				return nil, err
			}
			b := nft.NewBatch(n.table)
			p.record(b)
			return b, nil
		}, nil)
		if err != nil {
			p = new(plan)
			return netns.IgnoreNotExist(err) // the table is being removed, which is looked after next
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		return p.apply(ctx, n.ns)
	})
	return p.writes(), err
}

// flipped is what the table says about links that did not forward before, and how
// many networks there are.
type flipped struct {
	networks  int
	localnet  []nft.Element
	bridged   []nft.Element
	four, six []nft.Element
}

func (n *NAT) readFlipped(ctx context.Context, c nft.Conn) (f flipped, err error) {
	ifs, err := c.Elements(ctx, n.table, "ifs")
	if err != nil {
		return f, err
	}
	f.networks = len(ifs)
	if f.localnet, err = c.Elements(ctx, n.table, "localnet"); err != nil {
		return f, err
	}
	if f.bridged, err = c.Elements(ctx, n.table, "bridged"); err != nil {
		return f, err
	}
	if f.four, err = c.Elements(ctx, n.table, families[0].flipped); err != nil {
		return f, err
	}
	f.six, err = c.Elements(ctx, n.table, families[1].flipped)
	return f, err
}

// bridgedNames are the bridges in elements of the set bridged.
func bridgedNames(elems []nft.Element) map[string]bool {
	m := make(map[string]bool, len(elems))
	for _, e := range elems {
		name, _ := pairOf(e.Key)
		m[name] = true
	}
	return m
}

func names(elems []nft.Element) map[string]bool {
	m := make(map[string]bool, len(elems))
	for _, e := range elems {
		m[nameOf(e.Key)] = true
	}
	return m
}

// restore sets the links back to what they were. Where the machine was made a
// router meanwhile, by the global switch, its links forward on.
func (f flipped) restore(ctx context.Context, ns *netns.NS) error {
	if len(f.four) > 0 {
		router, err := ns.Sysctl(ctx, "net.ipv4.ip_forward")
		if err != nil {
			return err
		}
		if router != "0" {
			f.four = nil
		}
	}
	return errors.Join(f.write4(ctx, ns, 0), writeAll(ctx, ns, restore6(f.six)))
}

// reapply makes the links forward again.
func (f flipped) reapply(ctx context.Context, ns *netns.NS) error {
	return errors.Join(f.write4(ctx, ns, 1), writeAll(ctx, ns, reapply6(f.six)))
}

func (f flipped) write4(ctx context.Context, ns *netns.NS, value uint32) error {
	if len(f.four) == 0 && len(f.localnet) == 0 {
		return nil
	}
	links, err := readLinks(ctx, ns)
	if err != nil {
		return err
	}
	known := names(f.four)
	localnet := names(f.localnet)
	var settings []setting
	for _, l := range links {
		if known[l.name] {
			settings = append(settings, setting{l, confForwarding, value})
		}
		if localnet[l.name] {
			settings = append(settings, setting{l, confRouteLocalnet, value})
		}
	}
	return setConf4(ctx, ns, settings)
}
