package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// plan is what AddNetwork changes of the links, found out before its batch is
// sent and written after.
type plan struct {
	localnet bool       // route_localnet of the network's interface is to be set
	settings []setting  // of IPv4
	four     []linkConf // the links whose IPv4 forwarding is to be set
	known    map[string]bool
	six      plan6
}

// plan reads the links and finds those that do not forward.
func (n *NAT) plan(ctx context.Context, c nft.Conn, iface string, subnets []netip.Prefix) (*plan, error) {
	links, err := readLinks(ctx, n.ns)
	if err != nil {
		return nil, err
	}
	f, err := n.readFlipped(ctx, c)
	if err != nil {
		return nil, err
	}
	p := &plan{known: names(f.four)}
	found := false
	for _, l := range links {
		own := l.name == iface
		found = found || own
		if !l.has4 || !has4(subnets) || l.port && !own {
			continue
		}
		if !l.forwarding {
			p.settings = append(p.settings, setting{l, confForwarding, 1})
			p.four = append(p.four, l)
		}
		if own && !l.localnet {
			p.localnet = true
			p.settings = append(p.settings, setting{l, confRouteLocalnet, 1})
		}
	}
	if !found {
		return nil, fmt.Errorf("there is no interface %s: %w", iface, os.ErrNotExist)
	}
	if has6(subnets) {
		p.six, err = netns.Do(ctx, n.ns, func(context.Context) (plan6, error) {
			return makePlan6(links, iface, names(f.six), hasForce())
		})
	}
	return p, err
}

// record4 are the elements for flipped4: the links that it does not have yet. One
// that it has stays, with what was true when it was recorded.
func (p *plan) record4() []nft.Element {
	var elems []nft.Element
	for _, l := range p.four {
		if !p.known[l.name] {
			elems = append(elems, nft.Element{Key: ifname(l.name)})
		}
	}
	return elems
}

// apply writes the settings.
func (p *plan) apply(ctx context.Context, ns *netns.NS) error {
	if err := setConf4(ctx, ns, p.settings); err != nil {
		return err
	}
	return writeAll(ctx, ns, p.six.writes)
}

// flipped is what the table says about links that did not forward before, and how
// many networks there are.
type flipped struct {
	networks  int
	localnets []string
	four, six []nft.Element
}

func (n *NAT) readFlipped(ctx context.Context, c nft.Conn) (f flipped, err error) {
	ifs, err := c.Elements(ctx, n.table, "ifs")
	if err != nil {
		return f, err
	}
	f.networks = len(ifs)
	for _, e := range ifs {
		if e.Comment == noteLocalnet {
			f.localnets = append(f.localnets, nameOf(e.Key))
		}
	}
	if f.four, err = c.Elements(ctx, n.table, families[0].flipped); err != nil {
		return f, err
	}
	f.six, err = c.Elements(ctx, n.table, families[1].flipped)
	return f, err
}

func names(elems []nft.Element) map[string]bool {
	m := make(map[string]bool, len(elems))
	for _, e := range elems {
		m[nameOf(e.Key)] = true
	}
	return m
}

// restore sets the links back to what they were.
func (f flipped) restore(ctx context.Context, ns *netns.NS) error {
	return errors.Join(f.write4(ctx, ns, 0), writeAll(ctx, ns, restore6(f.six)))
}

// reapply makes the links forward again.
func (f flipped) reapply(ctx context.Context, ns *netns.NS) error {
	return errors.Join(f.write4(ctx, ns, 1), writeAll(ctx, ns, reapply6(f.six)))
}

func (f flipped) write4(ctx context.Context, ns *netns.NS, value uint32) error {
	if len(f.four) == 0 && len(f.localnets) == 0 {
		return nil
	}
	links, err := readLinks(ctx, ns)
	if err != nil {
		return err
	}
	known := names(f.four)
	localnets := make(map[string]bool, len(f.localnets))
	for _, name := range f.localnets {
		localnets[name] = true
	}
	var settings []setting
	for _, l := range links {
		if known[l.name] {
			settings = append(settings, setting{l, confForwarding, value})
		}
		if localnets[l.name] {
			settings = append(settings, setting{l, confRouteLocalnet, value})
		}
	}
	return setConf4(ctx, ns, settings)
}
