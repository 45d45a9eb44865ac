package netnstest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// maxLines bounds each section of a dump but that of nftables.
const maxLines = 100

// dump writes the state of a namespace into the test's log. It is read over
// netlink, without any program.
func dump(t testing.TB, ns *netns.NS, part string) {
	t.Helper()
	// The test's own context is over in a Cleanup.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var b strings.Builder
	d := dumper{ctx: ctx, ns: ns, out: &b, links: map[int]string{}}
	d.section("links", maxLines, d.linkLines)
	d.section("addresses", maxLines, d.addrLines)
	d.section("routes", maxLines, d.routeLines)
	d.section("rules", maxLines, d.ruleLines)
	d.section("neighbours", maxLines, d.neighLines)
	d.section("nft", maxRules, d.nftLines)
	d.section("sockets", maxLines, d.socketLines)
	if part != "" {
		part = ", " + part
	}
	t.Logf("netns %v%s:\n%s", ns, part, b.String())
}

type dumper struct {
	ctx   context.Context
	ns    *netns.NS
	out   *strings.Builder
	links map[int]string // names by index
}

// section writes the lines that read returns below a headline, up to most of them. What cannot
// be read says so.
func (d *dumper) section(name string, most int, read func() ([]string, error)) {
	lines, err := read()
	if len(lines) == 0 && err == nil {
		return
	}
	fmt.Fprintf(d.out, "  %s:\n", name)
	for i, line := range lines {
		if i == most {
			fmt.Fprintf(d.out, "    and %d more\n", len(lines)-i)
			break
		}
		fmt.Fprintf(d.out, "    %s\n", line)
	}
	if err != nil {
		fmt.Fprintf(d.out, "    %v\n", err)
	}
}

// read dumps a table and makes a line of each message; "" is left out.
func (d *dumper) read(family int, req nl.Request, header int, line func(m nl.Message, attrs nl.Walker) (string, error)) ([]string, error) {
	conn, err := nsconn.Shared(d.ns, family)
	if err != nil {
		return nil, err
	}
	var lines []string
	err = conn.Dump(d.ctx, req, func() { lines = nil }, func(m nl.Message) error {
		if len(m.Body) < header {
			return errShort
		}
		s, err := line(m, nl.Walk(m.Body[header:]))
		if s != "" {
			lines = append(lines, s)
		}
		return err
	})
	return lines, err
}

func (d *dumper) route(typ uint16, header int, line func(m nl.Message, attrs nl.Walker) (string, error)) ([]string, error) {
	return d.read(unix.NETLINK_ROUTE, nl.Request{Type: typ, Body: make([]byte, header)}, header, line)
}

func (d *dumper) link(index int) string {
	if name := d.links[index]; name != "" {
		return name
	}
	return fmt.Sprintf("link %d", index)
}

func (d *dumper) linkLines() ([]string, error) {
	links, err := rtnl.Links(d.ctx, d.ns)
	for _, l := range links {
		d.links[l.Index] = l.Name
	}
	var lines []string
	for _, l := range links {
		up, kind := "down", l.Kind
		if l.Flags&unix.IFF_UP != 0 {
			up = "up"
		}
		if kind != "" {
			kind = " " + kind
		}
		line := fmt.Sprintf("%d %s%s %s (%s) mtu %d %s", l.Index, l.Name, kind, up, operState(uint8(l.State)), l.MTU, l.MAC)
		if l.PeerNSID != nil {
			line += fmt.Sprintf(" peer in nsid %d", *l.PeerNSID)
		}
		if l.Master != 0 {
			line += " master " + d.link(l.Master)
		}
		lines = append(lines, line)
	}
	return lines, err
}

// operState names an operational state (linux/if.h).
func operState(s uint8) string {
	names := [...]string{"unknown", "not present", "down", "lower layer down", "testing", "dormant", "up"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprint(s)
}

func (d *dumper) addrLines() ([]string, error) {
	addrs, err := rtnl.Addrs(d.ctx, d.ns, unix.AF_UNSPEC)
	var lines []string
	for _, a := range addrs {
		state := ""
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			state += " tentative"
		}
		if a.Flags&unix.IFA_F_DADFAILED != 0 {
			state += " duplicate"
		}
		lines = append(lines, fmt.Sprintf("%s on %s%s", a.Local, d.link(a.Link), state))
	}
	return lines, err
}

// neighLines leaves out the entries that need no neighbour.
func (d *dumper) neighLines() ([]string, error) {
	states := map[uint16]string{
		unix.NUD_INCOMPLETE: "incomplete", unix.NUD_REACHABLE: "reachable", unix.NUD_STALE: "stale",
		unix.NUD_DELAY: "delay", unix.NUD_PROBE: "probe", unix.NUD_FAILED: "failed", unix.NUD_PERMANENT: "permanent",
	}
	neighbours, err := rtnl.Neighbours(d.ctx, d.ns)
	var lines []string
	for _, n := range neighbours {
		if states[n.State] == "" {
			continue
		}
		mac := "no address"
		if n.MAC != nil {
			mac = n.MAC.String()
		}
		lines = append(lines, fmt.Sprintf("%s on %s: %s, %s", n.Addr, d.link(n.Link), mac, states[n.State]))
	}
	return lines, err
}
