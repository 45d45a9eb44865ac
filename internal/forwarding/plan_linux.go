package forwarding

import (
	"context"
	"slices"

	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
)

// Network is a network for which the host forwards.
type Network struct {
	Link       string // it need not exist
	IPv4, IPv6 bool   // the families of its subnets
}

// Plan is what has to be changed of a host's links.
type Plan struct {
	Changes []Change        // to be written, in this order
	New     []Change        // those among them that were not recorded before
	Bridges []string        // bridges among the links that did not forward
	Links   map[string]bool // the links that exist
	Routed  map[string]int  // those that packets for the networks come in by or leave by, with their indexes
	Ports   map[string]Port // the ports of bridges
}

// Port is a port of a bridge.
type Port struct {
	Index  int
	Master int // the index of the bridge
}

// Options are the options of [Make].
type Options struct {
	// GlobalSwitch uses the global switch of IPv6 also where the kernel has
	// force_forwarding.
	GlobalSwitch bool

	// Others are links of networks that somebody else makes forward. They are left out.
	Others map[string]bool

	// Switched says that another program has recorded the global switch of IPv6, and restores it. The networks'
	// own links are recorded, which forward because of it if they came later.
	Switched bool
}

// Make reads the links and plans what makes them forward for the networks. recorded are
// the changes that were made before, and not reverted.
func Make(ctx context.Context, ns *netns.NS, nets []Network, recorded []Change, o Options) (*Plan, error) {
	links, err := rtnl.Links(ctx, ns)
	if err != nil {
		return nil, err
	}
	links = slices.DeleteFunc(links, func(l rtnl.Link) bool { return l.IsLoopback() })
	p := &planning{links: links, own: make(map[string]bool), others: o.Others, recorded: recorded}
	var four, six bool
	for _, net := range nets {
		p.own[net.Link] = true
		four = four || net.IPv4
		six = six || net.IPv6
	}
	if four {
		p.planIPv4(nets)
		if err := p.setApart(ctx, ns); err != nil {
			return nil, err
		}
	}
	if six {
		if oerr := nsconn.Open(ctx, ns, func() { err = p.planIPv6(read6, o) }); oerr != nil {
			return nil, oerr
		}
	}
	return p.finish(), err
}

// planning is a Make under way. Its methods read nothing by themselves.
type planning struct {
	links    []rtnl.Link
	own      map[string]bool // the networks' own links
	others   map[string]bool // Options.Others
	recorded []Change
	plan     Plan
}

// add adds a change. One that is recorded is recorded with the value from before the
// first time.
func (p *planning) add(c Change) {
	p.plan.Changes = append(p.plan.Changes, c)
	if !p.isRecorded(c) {
		p.plan.New = append(p.plan.New, c)
	}
}

// isRecorded reports whether a change of the link is recorded already: of IPv4, of the
// same setting.
func (p *planning) isRecorded(c Change) bool {
	return slices.ContainsFunc(p.recorded, func(r Change) bool {
		return r.Link == c.Link && (r.Setting == c.Setting || !r.Setting.isIPv4() && !c.Setting.isIPv4())
	})
}

// forwards reports whether a link takes part: not those of networks of others, and not the ports of bridges
// of others, by which no IP packet comes in.
func (p *planning) forwards(l *rtnl.Link) bool {
	return p.own[l.Name] || !l.IsPort() && !p.others[l.Name]
}

func (p *planning) planIPv4(nets []Network) {
	for i := range p.links {
		l := &p.links[i]
		if l.IPv4 == nil || !p.forwards(l) {
			continue
		}
		if !l.IPv4.On(rtnl.Forwarding) {
			p.add(Change{Link: l.Name, Index: l.Index, Setting: IPv4Forwarding, From: '0', To: '1'})
		}
		own := slices.ContainsFunc(nets, func(n Network) bool { return n.Link == l.Name && n.IPv4 })
		if own && !l.IPv4.On(rtnl.RouteLocalnet) {
			p.add(Change{Link: l.Name, Index: l.Index, Setting: IPv4RouteLocalnet, From: '0', To: '1'})
		}
	}
}

// setApart marks the links to be recorded that are off although the global switch is on.
func (p *planning) setApart(ctx context.Context, ns *netns.NS) error {
	isForwarding := func(c Change) bool { return c.Setting == IPv4Forwarding }
	if !slices.ContainsFunc(p.plan.New, isForwarding) {
		return nil
	}
	on, err := switchedOn(ctx, ns)
	if err != nil || !on {
		return err
	}
	for i := range p.plan.New {
		p.plan.New[i].Apart = isForwarding(p.plan.New[i])
	}
	return nil
}

// switchedOn reports whether the global switch of IPv4 is on.
func switchedOn(ctx context.Context, ns *netns.NS) (bool, error) {
	v, err := ns.Sysctl(ctx, "net.ipv4.ip_forward")
	return v != "0", err
}

// finish returns the plan.
func (p *planning) finish() *Plan {
	p.plan.Links, p.plan.Routed, p.plan.Ports = make(map[string]bool, len(p.links)), make(map[string]int), make(map[string]Port)
	for _, l := range p.links {
		p.plan.Links[l.Name] = true
		if p.forwards(&l) && !l.IsPort() {
			p.plan.Routed[l.Name] = l.Index
		}
		if l.PortKind == "bridge" {
			p.plan.Ports[l.Name] = Port{l.Index, l.Master}
		}
		if l.Kind == "bridge" && p.startsToForward(l.Name) {
			p.plan.Bridges = append(p.plan.Bridges, l.Name)
		}
	}
	return &p.plan
}

// startsToForward reports whether the link did not forward before: of IPv4 now, of IPv6
// before the first time.
func (p *planning) startsToForward(link string) bool {
	return slices.ContainsFunc(p.plan.Changes, func(c Change) bool { return c.Link == link && c.Setting == IPv4Forwarding }) ||
		slices.ContainsFunc(p.plan.New, func(c Change) bool { return c.Link == link && !c.Setting.isIPv4() })
}
