//go:build linux

package main

import (
	"context"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// What a container in several networks sends from one of its addresses leaves by that address's
// network: the others do not let it pass, and the kernel would choose the way by the destination alone.
// So each address has a rule that leads to a table with the routes of its link, as the plugin sbr makes them.

const (
	answersOwner    = route.Protocol(202) // of these rules and routes
	answersPriority = 1000                // of the rules: behind that of the table local
	answersTable    = route.Table(20000)  // and the index of the link
)

// setAnswers brings the rules and their tables in line with the routes that the container has. A
// container with one default route of a family has none.
func setAnswers(ctx context.Context, box *netns.NS) error {
	rules, routes, err := wantedAnswers(ctx, box)
	if err != nil {
		return err
	}
	if len(rules) > 0 {
		if _, err := route.Sync(ctx, box, answersOwner, routes...); err != nil {
			return err
		}
	}
	changes, err := route.SyncRules(ctx, box, answersOwner, rules...)
	if err == nil && len(rules) == 0 && changes.Deleted > 0 {
		_, err = route.Sync(ctx, box, answersOwner)
	}
	return err
}

// wantedAnswers are the rules and routes that the container needs.
func wantedAnswers(ctx context.Context, box *netns.NS) (rules []route.Rule, routes []route.Route, err error) {
	have, err := route.List(ctx, box, route.Filter{Table: route.TableMain})
	if err != nil {
		return nil, nil, err
	}
	for _, is4 := range []bool{true, false} {
		devs := defaultDevs(have, is4)
		if len(devs) < 2 {
			continue
		}
		for _, dev := range devs {
			l, err := link.ByIndex(ctx, box, dev)
			if err != nil {
				return nil, nil, err
			}
			addrs, err := l.Addrs(ctx)
			if err != nil {
				return nil, nil, err
			}
			for _, a := range addrs {
				if at := a.Prefix.Addr(); at.Is4() == is4 && !at.IsLinkLocalUnicast() {
					rules = append(rules, answerRule(at, dev))
				}
			}
			routes = append(routes, answerRoutes(have, is4, dev)...)
		}
	}
	return rules, routes, nil
}

// defaultDevs are the links that default routes of a family lead to a gateway by.
func defaultDevs(have []route.Route, is4 bool) (devs []int) {
	for _, r := range have {
		if (r.Table == 0 || r.Table == route.TableMain) && r.Dst.Addr().Is4() == is4 && r.Dst.Bits() == 0 && r.Via.IsValid() && r.Dev != 0 && !slices.Contains(devs, r.Dev) {
			devs = append(devs, r.Dev)
		}
	}
	return devs
}

func answerRule(at netip.Addr, dev int) route.Rule {
	return route.Rule{
		Priority: answersPriority, From: netip.PrefixFrom(at, at.BitLen()),
		Table: answersTable + route.Table(dev), Protocol: answersOwner,
	}
}

// answerRoutes are a link's routes of the main table for its own, those to gateways last.
func answerRoutes(have []route.Route, is4 bool, dev int) []route.Route {
	var direct, behind []route.Route
	for _, r := range have {
		if r.Dst.Addr().Is4() != is4 || r.Dev != dev || r.Dst.Addr().IsLinkLocalUnicast() || r.Dst.Addr().IsMulticast() {
			continue
		}
		r.Table, r.Protocol = answersTable+route.Table(dev), answersOwner
		if r.Via.IsValid() {
			behind = append(behind, r)
		} else {
			direct = append(direct, r)
		}
	}
	return append(direct, behind...)
}

// withdrawAnswers is setAnswers after an attachment has gone, if the container's namespace has not.
func (r *request) withdrawAnswers(ctx context.Context) error {
	if r.args.Netns == "" {
		return nil
	}
	box, err := netns.OpenPath(ctx, r.args.Netns)
	if err != nil {
		return nil // gone, and the rules with it
	}
	defer box.Close()
	if box.Equal(r.host) {
		return nil
	}
	return failed("removing the container's rules", setAnswers(ctx, box))
}

// checkAnswers looks for the rules of the attachment's addresses, in a container that has some.
func checkAnswers(ctx context.Context, box *netns.NS, l *lease) error {
	want, _, err := wantedAnswers(ctx, box)
	if err != nil || len(want) == 0 {
		return failed("reading the container's routes", err)
	}
	have, err := route.ListRules(ctx, box, 0)
	if err != nil {
		return failed("reading the container's rules", err)
	}
	if !slices.ContainsFunc(have, func(h route.Rule) bool { return h.Protocol == answersOwner }) {
		return nil // what gave it a second default route was another program
	}
	for _, w := range want {
		mine := slices.ContainsFunc(l.addrs, func(p netip.Prefix) bool { return p.Addr() == w.From.Addr() })
		if mine && !slices.ContainsFunc(have, func(h route.Rule) bool { return h.From == w.From && h.Table == w.Table }) {
			return drift("the container has no rule for what it sends from %v", w.From.Addr())
		}
	}
	return nil
}
