package nat

import (
	"context"
	"net/netip"
	"slices"
	"strings"
)

// lookAtPolicyIn finds out whether the policy of the box lets visitors in.
func (d *diagnosis) lookAtPolicyIn(ctx context.Context) error {
	box := d.box.Addr()
	if !d.there || !box.IsValid() || d.local {
		return nil
	}
	p, err := d.policy(ctx)
	if err != nil || p.Ingress == nil {
		return err
	}
	var may []Rule
	for _, r := range p.Ingress.Allow {
		t := target{peer: d.hints.From, proto: uint8(d.port.Proto), port: d.box.Port()}
		if !t.peer.IsValid() && r.of(box.Is6()) { // anyone that the rule is for
			t.peer = outsideOf(r.Except, r.peer(box.Is6()))
		}
		if t.peer.IsValid() && t.allowedBy(r) {
			may = append(may, r)
		}
	}
	open := d.hints.From.IsValid() && len(may) > 0 || slices.ContainsFunc(may, func(r Rule) bool { return r.peer(box.Is6()).Bits() == 0 && len(r.Except) == 0 })
	if !open {
		who := "anyone"
		if d.hints.From.IsValid() {
			who = d.hints.From.String()
		}
		d.denied(p, may, "let "+who+" in on "+d.port.Proto.String()+" "+d.box.String())
	}
	return nil
}

// lookAtPolicyOut finds out whether the policy of the box lets it out. Protocol and port are not
// known, so rules that allow some are named.
func (d *diagnosis) lookAtPolicyOut(ctx context.Context) error {
	box := d.box.Addr()
	if !d.there {
		return nil
	}
	p, err := d.policy(ctx)
	if err != nil {
		return err
	}
	if p.Egress == nil {
		return d.lookAtStrict(ctx)
	}
	var may []Rule
	for _, r := range p.Egress.Allow {
		to := d.hints.From // in outward diagnoses, where the box connects to
		if !to.IsValid() && r.of(box.Is6()) {
			to = outsideOf(r.Except, r.peer(box.Is6()))
		}
		if t := (target{host: d.toHost, peer: to, proto: uint8(r.protoOf(box.Is6())), port: r.Port}); to.IsValid() && t.allowedBy(r) {
			may = append(may, r)
		}
	}
	if slices.ContainsFunc(may, func(r Rule) bool { return r.Proto == 0 && (d.hints.From.IsValid() || r.peer(box.Is6()).Bits() == 0) }) {
		return nil
	}
	what := "out"
	if d.hints.From.IsValid() {
		what = "reach " + d.hints.From.String()
	}
	d.denied(p, may, "let it "+what)
	return nil
}

// lookAtStrict finds out whether the box needs a policy to get out.
func (d *diagnosis) lookAtStrict(ctx context.Context) error {
	networks, err := d.n.networks(ctx)
	for _, w := range networks {
		if w.Strict && w.contains(d.box.Addr()) {
			d.add(CausePolicy, true, "address "+d.box.Addr().String(),
				"the network of %s is Strict and no policy with Egress names %v: SetPolicies adds one.", w.Interface, d.box.Addr())
		}
	}
	return err
}

// policy returns the policy of the box, the zero Policy for none.
func (d *diagnosis) policy(ctx context.Context) (Policy, error) {
	ps, err := d.n.readPolicies(ctx, d.c, d.box.Addr())
	return ps[d.box.Addr()], err
}

// denied adds the cause that a policy does not let something pass, but for some rules.
func (d *diagnosis) denied(p Policy, may []Rule, what string) {
	var rules []string
	for _, r := range may {
		rules = append(rules, r.String())
	}
	if len(may) == 0 {
		d.add(CausePolicy, true, p.subject(), "%s, of %q, has no rule to %s.", p.subject(), p.Owner, what)
		return
	}
	d.add(CausePolicy, false, p.subject(), "%s, of %q, has only these rules to %s: %s.", p.subject(), p.Owner, what, strings.Join(rules, "; "))
}

// outsideOf returns an address of a prefix that is in none of the exceptions; the zero Addr if they
// leave none that is easy to find.
func outsideOf(except []netip.Prefix, p netip.Prefix) netip.Addr {
	for _, a := range append([]netip.Addr{p.Addr(), lastAddr(p)}, after(except)...) {
		if p.Contains(a) && !slices.ContainsFunc(except, func(e netip.Prefix) bool { return e.Contains(a) }) {
			return a
		}
	}
	return netip.Addr{}
}

// after returns the addresses behind prefixes.
func after(prefixes []netip.Prefix) (all []netip.Addr) {
	for _, p := range prefixes {
		all = append(all, lastAddr(p).Next())
	}
	return all
}
