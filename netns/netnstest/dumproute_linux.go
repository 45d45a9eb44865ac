package netnstest

import (
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// routeLines lists the routes of all tables but the kernel's own table of local
// addresses.
func (d *dumper) routeLines() ([]string, error) {
	routes, err := rtnl.Routes(d.ctx, d.ns, unix.AF_UNSPEC)
	var lines []string
	for _, r := range routes {
		if r.Table == unix.RT_TABLE_LOCAL || !isIP(r.Family) {
			continue
		}
		line := routeType(r.Type) + r.Dst.String()
		if r.Gateway.IsValid() {
			line += " via " + r.Gateway.String()
		}
		if r.Multi {
			line += " by several hops"
		} else if r.Link() != 0 {
			line += " on " + d.link(r.Link())
		}
		if r.Priority != 0 {
			line += fmt.Sprintf(" metric %d", r.Priority)
		}
		if r.Table != unix.RT_TABLE_MAIN {
			line += fmt.Sprintf(" in table %d", r.Table)
		}
		lines = append(lines, line)
	}
	return lines, err
}

// isIP leaves out what the kernel has for multicast routing (RTNL_FAMILY_IPMR).
func isIP(family byte) bool { return family == unix.AF_INET || family == unix.AF_INET6 }

// routeType names what is not an ordinary route, with a blank behind.
func routeType(t byte) string {
	switch t {
	case unix.RTN_UNICAST:
		return ""
	case unix.RTN_BLACKHOLE:
		return "blackhole "
	case unix.RTN_UNREACHABLE:
		return "unreachable "
	case unix.RTN_PROHIBIT:
		return "prohibit "
	case unix.RTN_MULTICAST:
		return "multicast "
	}
	return fmt.Sprintf("type %d ", t)
}

// prefixOf writes a prefix; without an address it is that of everything.
func prefixOf(family byte, addr []byte, bits byte) string {
	if addr == nil {
		switch {
		case bits > 0:
			return fmt.Sprintf("a prefix of %d bits", bits)
		case family == unix.AF_INET:
			return "0.0.0.0/0"
		}
		return "::/0"
	}
	return netip.PrefixFrom(address(addr), int(bits)).String()
}

func (d *dumper) ruleLines() ([]string, error) {
	const header = 12 // struct fib_rule_hdr, of the same shape as struct rtmsg
	return d.route(unix.RTM_GETRULE, header, func(m nl.Message, a nl.Walker) (string, error) {
		var priority, mark uint32
		table := uint32(m.Body[4])
		from, to, dev := "", "", ""
		for a.Next() {
			switch a.Type() {
			case unix.FRA_PRIORITY:
				priority = a.U32()
			case unix.FRA_TABLE:
				table = a.U32()
			case unix.FRA_SRC:
				from = " from " + prefixOf(m.Body[0], a.Data(), m.Body[2])
			case unix.FRA_DST:
				to = " to " + prefixOf(m.Body[0], a.Data(), m.Body[1])
			case unix.FRA_IIFNAME:
				dev += " in by " + a.String()
			case unix.FRA_OIFNAME:
				dev += " out by " + a.String()
			case unix.FRA_FWMARK:
				mark = a.U32()
			}
		}
		if !isIP(m.Body[0]) || priority == 0 && table == unix.RT_TABLE_LOCAL || table == unix.RT_TABLE_MAIN && priority == 32766 ||
			table == unix.RT_TABLE_DEFAULT && priority == 32767 {
			return "", a.Err() // those that every namespace has
		}
		if mark != 0 {
			dev += fmt.Sprintf(" with mark %#x", mark)
		}
		family := "IPv4"
		if m.Body[0] == unix.AF_INET6 {
			family = "IPv6"
		}
		return fmt.Sprintf("%d %s%s%s%s: table %d", priority, family, from, to, dev, table), a.Err()
	})
}

func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
