package netnstest

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// maxLines bounds each section of a dump.
const maxLines = 100

// dump writes the state of a namespace into the test's log. It is read over
// netlink, without any program.
func dump(t testing.TB, ns *netns.NS, part string) {
	t.Helper()
	// The test's own context is over in a Cleanup.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var b strings.Builder
	d := dumper{ctx: ctx, ns: ns, out: &b, links: map[uint32]string{}}
	d.section("links", d.linkLines)
	d.section("addresses", d.addrLines)
	d.section("routes", d.routeLines)
	d.section("rules", d.ruleLines)
	d.section("neighbours", d.neighLines)
	d.section("nft", d.nftLines)
	d.section("sockets", d.socketLines)
	if part != "" {
		part = ", " + part
	}
	t.Logf("netns %v%s:\n%s", ns, part, b.String())
}

type dumper struct {
	ctx   context.Context
	ns    *netns.NS
	out   *strings.Builder
	links map[uint32]string // names by index
}

// section writes the lines that read returns below a headline. What cannot be read
// says so.
func (d *dumper) section(name string, read func() ([]string, error)) {
	lines, err := read()
	if len(lines) == 0 && err == nil {
		return
	}
	fmt.Fprintf(d.out, "  %s:\n", name)
	for i, line := range lines {
		if i == maxLines {
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
	conn, err := d.ns.Exchange(family)
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

func (d *dumper) link(index uint32) string {
	if name := d.links[index]; name != "" {
		return name
	}
	return fmt.Sprintf("link %d", index)
}

func (d *dumper) linkLines() ([]string, error) {
	masters := map[int]uint32{}
	n := 0
	lines, err := d.route(unix.RTM_GETLINK, unix.SizeofIfInfomsg, func(m nl.Message, a nl.Walker) (string, error) {
		index := binary.NativeEndian.Uint32(m.Body[4:])
		flags := binary.NativeEndian.Uint32(m.Body[8:])
		var name, kind, mac, peer string
		var mtu uint32
		var state uint8
		for a.Next() {
			switch a.Type() {
			case unix.IFLA_IFNAME:
				name = a.String()
			case unix.IFLA_MTU:
				mtu = a.U32()
			case unix.IFLA_OPERSTATE:
				state = a.U8()
			case unix.IFLA_ADDRESS:
				mac = net.HardwareAddr(a.Data()).String()
			case unix.IFLA_MASTER:
				masters[n] = a.U32()
			case unix.IFLA_LINK_NETNSID:
				peer = fmt.Sprintf(" peer in nsid %d", int32(a.U32()))
			case unix.IFLA_LINKINFO:
				for info := a.Nested(); info.Next(); {
					if info.Type() == unix.IFLA_INFO_KIND {
						kind = " " + info.String()
					}
				}
			}
		}
		d.links[index] = name
		n++
		up := "down"
		if flags&unix.IFF_UP != 0 {
			up = "up"
		}
		return fmt.Sprintf("%d %s%s %s (%s) mtu %d %s%s", index, name, kind, up, operState(state), mtu, mac, peer), a.Err()
	})
	for i, master := range masters {
		if i < len(lines) {
			lines[i] += " master " + d.link(master)
		}
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
	return d.route(unix.RTM_GETADDR, unix.SizeofIfAddrmsg, func(m nl.Message, a nl.Walker) (string, error) {
		var local, addr netip.Addr
		flags := uint32(m.Body[2])
		for a.Next() {
			switch a.Type() {
			case unix.IFA_LOCAL:
				local = address(a.Data())
			case unix.IFA_ADDRESS:
				addr = address(a.Data())
			case unix.IFA_FLAGS:
				flags = a.U32()
			}
		}
		if !local.IsValid() {
			local = addr
		}
		state := ""
		if flags&unix.IFA_F_TENTATIVE != 0 {
			state += " tentative"
		}
		if flags&unix.IFA_F_DADFAILED != 0 {
			state += " duplicate"
		}
		return fmt.Sprintf("%s/%d on %s%s", local, m.Body[1], d.link(binary.NativeEndian.Uint32(m.Body[4:])), state), a.Err()
	})
}

func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// neighLines leaves out the entries that need no neighbour.
func (d *dumper) neighLines() ([]string, error) {
	const header = 12 // struct ndmsg
	states := map[uint16]string{
		unix.NUD_INCOMPLETE: "incomplete", unix.NUD_REACHABLE: "reachable", unix.NUD_STALE: "stale",
		unix.NUD_DELAY: "delay", unix.NUD_PROBE: "probe", unix.NUD_FAILED: "failed", unix.NUD_PERMANENT: "permanent",
	}
	return d.route(unix.RTM_GETNEIGH, header, func(m nl.Message, a nl.Walker) (string, error) {
		state := states[binary.NativeEndian.Uint16(m.Body[8:])]
		var addr netip.Addr
		mac := "no address"
		for a.Next() {
			switch a.Type() {
			case unix.NDA_DST:
				addr = address(a.Data())
			case unix.NDA_LLADDR:
				mac = net.HardwareAddr(a.Data()).String()
			}
		}
		if state == "" {
			return "", a.Err()
		}
		return fmt.Sprintf("%s on %s: %s, %s", addr, d.link(binary.NativeEndian.Uint32(m.Body[4:])), mac, state), a.Err()
	})
}
