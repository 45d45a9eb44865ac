//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// overlay sends packets through the tunnel, counts them on both hosts, and names the place after which there are none.
func (e *explainer) overlay(ctx context.Context, ways []way, agent *asker, reached bool) error {
	for i, p := range e.peer.Prefixes {
		if w := ways[i]; w.cause == "" {
			if err := e.walk(ctx, w, p, agent, reached); err != nil {
				return err
			}
		}
	}
	return nil
}

// source is this node's overlay address of the family, or the zero Addr.
func (e *explainer) source(to netip.Addr) netip.Addr {
	for _, p := range e.self.Prefixes {
		if familyOf(p.Addr()) == familyOf(to) {
			return state.Gateway(p)
		}
	}
	return netip.Addr{}
}

func (e *explainer) walk(ctx context.Context, w way, p netip.Prefix, agent *asker, reached bool) error {
	to, m := state.Gateway(p), newMarker()
	from := e.source(to)
	here, err := e.openWatch(ctx, m, e.report.Endpoint)
	if err != nil {
		return err
	}
	defer here.file.Close()
	counting := false // the peer counts, too
	if agent != nil {
		r, _, err := agent.ask(ctx, message{kind: kindWatch, marker: m})
		counting = err == nil && r.status == statusOK
		if !counting {
			e.report.fact("the peer's agent does not count packets now")
		}
	}
	answers, err := echoAll(ctx, e.NS, []netip.Addr{from}, []netip.Addr{to}, m)
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		e.report.find(AddressMissing, Here, "Restart the agent, which gives the tunnel link its addresses", "this host does not have its own overlay address %v", from)
		return nil
	} else if err != nil {
		return err
	}
	t := trip{bare: w.bare, hidden: e.Hidden, failed: [2]error{byICMP: answers[to]}}
	if counting && answers[to] == nil {
		// The kernel makes the checksum of an echo reply itself, and leaves that of a UDP packet to the hardware, where there is some
		// that offers it. So both are tried.
		a, _, _, err := e.hello(ctx, from, to, m)
		if t.failed[byUDP] = err; a != nil {
			a.conn.Close()
		}
	}
	if t.here, err = here.counts(); err != nil {
		return err
	}
	if counting {
		r, _, err := agent.ask(ctx, message{kind: kindCounts, marker: m})
		if err == nil && r.status == statusOK {
			t.there = &r.counts
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if answers[to] == nil {
		e.report.fact("%v answers through the overlay", to)
	} else if !reached {
		return nil // the machine is silent, which says it all
	}
	f, ok := t.judge(to, e.Port)
	if ok && f.Side == There && e.wayBack != "" {
		return nil // what is wrong with the way back has been found already
	}
	if ok && !e.report.Has(f.Cause) {
		e.report.Findings = append(e.report.Findings, f)
	}
	return nil
}

// trip is what was counted of requests and their answers.
type trip struct {
	bare, hidden bool     // no tunnel header; the tunnel encrypts
	failed       [2]error // by what carried the marker: why there was no answer
	here         counts
	there        *counts // nil if the peer did not count
}

var carriers = []string{byICMP: "echo requests", byUDP: "UDP packets"}

const (
	offload = "Switch the offload off on the host that sends: `ethtool -K LINK tx-udp_tnl-csum-segmentation off tx-checksum-ip-generic off`, for the tunnel link and then for the underlay's"
	zero    = "Let the tunnel link accept it (udp6zerocsumrx), which the agent does when it makes the link"
)

// judge names the first place where packets are missing.
func (t trip) judge(to netip.Addr, port uint16) (Finding, bool) {
	for by, what := range carriers {
		here, there := t.here[by], seen{}
		if t.there != nil {
			there = t.there[by]
		}
		if there.Bad > 0 {
			return Finding{BadChecksum, Here, fmt.Sprintf("of %d %s that arrived at the peer for %v %d have a wrong UDP checksum, and its kernel drops them", there.WireIn, what, to, there.Bad), offload}, true
		}
		if here.Bad > 0 {
			return Finding{BadChecksum, There, fmt.Sprintf("of %d answers to %s to %v that arrived here %d have a wrong UDP checksum, and the kernel drops them", here.WireIn, what, to, here.Bad), offload}, true
		}
	}
	for by, what := range carriers {
		if t.failed[by] != nil {
			return t.missing(by, what, to, port), true
		}
	}
	return Finding{}, false
}

// missing goes along the way of a kind of packets, there and back.
func (t trip) missing(by int, what string, to netip.Addr, port uint16) Finding {
	tunnel := fmt.Sprintf("UDP port %d", port)
	if t.bare {
		tunnel = "them"
	}
	var (
		openHere = fmt.Sprintf("Let this host's firewall pass %s (`nft list ruleset`)", tunnel)
		openPeer = fmt.Sprintf("Let the peer's firewall pass %s, and compare port and VNI of its tunnel link", tunnel)
		openWay  = fmt.Sprintf("Let the firewalls, routers and security groups in between pass %s", tunnel)
		overlay  = fmt.Sprintf("Let the firewall pass what comes from the fleet's prefixes, and look whether the host has %v", to)
	)
	type place struct {
		n int
		f Finding
	}
	var places []place
	add := func(n int, c Cause, side Side, advice, format string) {
		places = append(places, place{n, Finding{c, side, fmt.Sprintf(format, what, to), advice}})
	}
	here := t.here[by]
	if !t.bare {
		add(here.LinkOut, FilteredHere, Here, openHere, "%s to %v do not leave by the tunnel link of this host")
	}
	add(here.WireOut, FilteredHere, Here, openHere, "%s to %v do not leave this host")
	if t.there == nil {
		add(here.WireIn, TunnelSilent, Between, openWay+", and start the peer's agent to learn more",
			"%s to %v leave this host, and nothing comes back; without the peer's agent nobody can say where they end")
	} else {
		there := t.there[by]
		add(there.WireIn, FilteredOnWay, Between, openWay, "%s to %v leave this host, and do not arrive at the peer")
		switch {
		case t.bare:
			add(there.WireOut, OverlaySilent, There, overlay, "%s to %v arrive at the peer, and no answer leaves it")
		case there.Zero > 0:
			add(there.LinkIn, BadChecksum, There, zero, "%s to %v arrive at the peer by UDP over IPv6 without a checksum, and do not come out of its tunnel link")
		default:
			add(there.LinkIn, FilteredAtPeer, There, openPeer, "%s to %v arrive at the peer, and do not come out of its tunnel link")
		}
		if !t.bare {
			add(there.LinkOut, OverlaySilent, There, overlay, "%s to %v come out of the peer's tunnel link, and its kernel sends no answer there")
			add(there.WireOut, FilteredAtPeer, There, openPeer, "the peer's kernel answers %s to %v, and the answers do not leave the peer")
		}
		add(here.WireIn, FilteredOnWay, Between, openWay, "the peer answers %s to %v, and the answers do not arrive here")
	}
	if !t.bare && here.Zero > 0 {
		add(here.LinkIn, BadChecksum, Here, zero, "answers to %s to %v arrive here by UDP over IPv6 without a checksum, and do not come out of the tunnel link")
	} else if !t.bare {
		add(here.LinkIn, FilteredHere, Here, openHere, "answers to %s to %v arrive here, and do not come out of the tunnel link")
	}
	for _, p := range places {
		if p.n > 0 {
			continue
		}
		var errno syscall.Errno
		if p.f.Cause == FilteredHere && errors.As(t.failed[by], &errno) {
			p.f.Measured += fmt.Sprintf(" (%v)", errno)
		}
		return p.f
	}
	return Finding{FilteredHere, Here, fmt.Sprintf("answers to %s to %v arrive here, and this host drops them", what, to), overlay}
}
