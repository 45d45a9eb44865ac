package explain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/plain"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/route"
)

// lookAtName looks at the boxes whose owner has a name as one of its parts, and at what is left of one that is not there.
func (r *report) lookAtName(ctx context.Context, name string) (err error) {
	is := func(owner string) bool { return strings.Contains("/"+owner+"/", "/"+name+"/") }
	if !slices.ContainsFunc(r.Boxes, func(b Box) bool { return is(b.Owner) }) && len(name) >= 8 {
		// Engines show the beginning of a long id.
		is = func(owner string) bool { return strings.Contains("/"+owner, "/"+name) }
	}
	found := false
	for i := range r.Boxes {
		if b := &r.Boxes[i]; is(b.Owner) {
			found = true
			err = errors.Join(err, r.lookAtBox(ctx, b))
		}
	}
	for _, p := range r.ports {
		if r.owned(p.Owner) == nil && is(p.Owner) {
			found = true
			err = errors.Join(err, r.explainPort(ctx, p))
		}
	}
	if !found {
		r.all = append(r.all, section{title: name, findings: []finding{{
			fmt.Sprintf("there is no %s %s, and nothing of one is left", r.Words.Box, name), r.known(), true,
		}}})
	}
	return err
}

// known names the boxes that there are.
func (r *report) known() string {
	if len(r.Boxes) == 0 {
		return fmt.Sprintf("there is no %s at all: start it", r.Words.Box)
	}
	var names []string
	for _, b := range r.Boxes[:min(len(r.Boxes), 10)] {
		names = append(names, b.Name)
	}
	if len(r.Boxes) > 10 {
		names = append(names, "...")
	}
	return "ask for one that is there: " + strings.Join(names, ", ")
}

// lookAtBox looks into a box, at its way out, and at its published ports.
func (r *report) lookAtBox(ctx context.Context, b *Box) error {
	s := section{title: b.Name + r.addrsOf(b)}
	var err error
	switch {
	case b.Gone:
		s.findings = append(s.findings, finding{fmt.Sprintf("the %s is gone, and what was made for it is left", r.Words.Box), r.Words.Gone, true})
	case len(b.Addrs) == 0:
		s.fact = "it has no address here, so that nothing can be said of its ways"
	default:
		if b.NS != nil {
			err = r.inside(ctx, b, &s)
		}
		if r.gw == nil && b.Routed {
			s.findings = append(s.findings, r.noTable())
		}
		if r.gw != nil && b.Routed {
			err = errors.Join(err, r.outward(ctx, b, &s))
		}
	}
	r.all = append(r.all, s)
	for _, p := range r.ports {
		if p.Owner == b.Owner && !r.ask.To.IsValid() {
			err = errors.Join(err, r.explainPort(ctx, p))
		}
	}
	return err
}

func (r *report) addrsOf(b *Box) string {
	if len(b.Addrs) == 0 {
		return ""
	}
	var all []string
	for _, a := range b.Addrs {
		all = append(all, a.String())
	}
	to := "outside"
	if r.ask.To.IsValid() {
		to = r.ask.To.String()
	}
	return fmt.Sprintf(" (%s), and its way to %s", strings.Join(all, ", "), to)
}

// target is where the box wants to go by an address, and whether it asks for that family.
func (r *report) target(a netip.Addr) (netip.Addr, bool) {
	return r.ask.To, !r.ask.To.IsValid() || r.ask.To.Is4() == a.Is4()
}

// outward looks at the way out that the host has for the box, once for each family. A host that has the outside by one
// family only is fine.
func (r *report) outward(ctx context.Context, b *Box, s *section) (err error) {
	looked, none := map[bool]bool{}, []finding(nil) // by whether it is IPv4; what misses a default route
	for _, a := range b.Addrs {
		to, asked := r.target(a)
		if looked[a.Is4()] || !asked {
			continue
		}
		looked[a.Is4()] = true
		down, broken, lerr := r.lookAtLink(ctx, a)
		if broken && !slices.ContainsFunc(s.findings, func(h finding) bool { return h.text == down.text }) {
			s.findings = append(s.findings, down)
		}
		causes, oerr := r.gw.ExplainOut(ctx, a, to)
		err = errors.Join(err, lerr, oerr)
		for _, c := range causes {
			f := r.finding(c, a, "", 0)
			switch {
			case broken && isOfTheWay(c) && !strings.Contains(c.Text, "default route"): // it follows
			case c.Kind == nat.CauseInternal && !to.IsValid():
				s.fact = "the network is internal: it has no way out on purpose"
			case c.Kind == nat.CauseNoRoute && !to.IsValid() && strings.Contains(c.Text, "default route"):
				none = append(none, f)
			case !slices.ContainsFunc(s.findings, func(h finding) bool { return h.text == f.text }):
				s.findings = append(s.findings, f)
			}
		}
	}
	if len(none) > 0 && len(none) == len(looked) {
		s.findings = append(s.findings, none[0])
	}
	return err
}

// inside looks at the box's own addresses, links and routes.
func (r *report) inside(ctx context.Context, b *Box, s *section) error {
	addrs, err := link.ListAddrs(ctx, b.NS)
	if err != nil {
		return err
	}
	for _, a := range b.Addrs {
		i := slices.IndexFunc(addrs, func(h link.Addr) bool { return h.Prefix.Addr() == a })
		if i < 0 {
			s.findings = append(s.findings, finding{fmt.Sprintf("the %s has lost its address %v", r.Words.Box, a), r.Words.Again, true})
			continue
		}
		l, err := link.ByIndex(ctx, b.NS, addrs[i].Link)
		if err != nil {
			return err
		}
		if !l.Up {
			s.findings = append(s.findings, finding{
				fmt.Sprintf("the link %s of the %s is down", l.Name, r.Words.Box),
				fmt.Sprintf("bring it up in the %s: ip link set %s up", r.Words.Box, plain.Word(l.Name)), true,
			})
			return nil // the rest follows
		}
		to, asked := r.target(a)
		if !asked {
			continue
		}
		what := "a default route"
		if to.IsValid() {
			what = "a route to " + to.String()
		} else if to = netip.AddrFrom4([4]byte{192, 0, 2, 1}); a.Is6() { // addresses of nobody, RFC 5737 and RFC 3849
			to = netip.MustParseAddr("2001:db8::1")
		}
		_, err = route.Lookup(ctx, b.NS, route.Query{Dst: to, Src: a})
		if err != nil && !errors.Is(err, os.ErrInvalid) && b.Routed {
			s.findings = append(s.findings, finding{fmt.Sprintf("the %s does not have %s for what it sends from %v", r.Words.Box, what, a), r.Words.Again, r.ask.To.IsValid()})
		}
	}
	return nil
}
