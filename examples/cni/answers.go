//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

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

	// A container decides how many links and routes it has. No other one waits long for it.
	mostAnswering = 64 // links with a default route
	answersTime   = 5 * time.Second
)

// setAnswers brings the rules and their tables in line with the routes that the container has. A
// container with one default route of a family has none.
func setAnswers(ctx context.Context, box *netns.NS) error {
	ctx, cancel := context.WithTimeout(ctx, answersTime)
	defer cancel()
	rules, routes, err := wantedAnswers(ctx, box)
	if err != nil {
		return err
	}
	if len(rules) > 0 {
		if _, err := route.Sync(ctx, box, answersOwner, routes...); err != nil {
			return err
		}
	}
	_, err = route.SyncRules(ctx, box, answersOwner, rules...)
	return err
}

// dropAnswers deletes the rules, and their routes, that the container does not need any more. It adds nothing:
// the others are there already, and the kernel need not take them from the container's routes again.
func dropAnswers(ctx context.Context, box *netns.NS) error {
	ctx, cancel := context.WithTimeout(ctx, answersTime)
	defer cancel()
	have, err := route.ListRules(ctx, box, 0)
	have = slices.DeleteFunc(have, func(h route.Rule) bool { return h.Protocol != answersOwner })
	if err != nil || len(have) == 0 {
		return err
	}
	want, _, err := wantedAnswers(ctx, box)
	if err != nil {
		return err
	}
	gone := slices.DeleteFunc(have, func(h route.Rule) bool {
		return slices.ContainsFunc(want, func(w route.Rule) bool { return h.From == w.From && h.Table == w.Table })
	})
	done := map[route.Table]bool{}
	for _, w := range want {
		done[w.Table] = true
	}
	for _, g := range gone { // the routes first: the rules say, the next time, that there are some
		if done[g.Table] || g.Table < answersTable {
			continue
		}
		done[g.Table] = true
		if _, err := route.Flush(ctx, box, route.Filter{Table: g.Table, Protocol: answersOwner}); err != nil {
			return err
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return netns.IgnoreNotExist(route.DeleteRules(ctx, box, gone...))
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
		if len(devs) > mostAnswering {
			return nil, nil, fmt.Errorf("the container has default routes by %d links; %d are possible: %w", len(devs), mostAnswering, os.ErrInvalid)
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

// withdrawAnswers is dropAnswers after an attachment has gone, if the container's namespace has not. What
// fails there fails by what the container has done to its routes. It does not keep the attachment from being
// gone, and the rules go with the namespace.
func (r *request) withdrawAnswers(ctx context.Context) {
	if r.args.Netns == "" {
		return
	}
	box, err := netns.OpenPath(ctx, r.args.Netns)
	if err != nil {
		return // gone, and the rules with it
	}
	defer box.Close()
	if box.Equal(r.host) {
		return
	}
	if err := dropAnswers(ctx, box); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s is gone, and rules of its container are left: %s\n", about, r.at.owner(), oneLine(err))
	}
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
