//go:build linux

package runner

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/nat"
)

// A publication is what -p asks for: a host port, or a range, that leads to a
// port of the box. Host 0 asks for free ones.
type publication struct {
	addr      netip.Addr // of the host; the zero Addr: all, of every family that the box has
	host, box uint16
	count     uint16 // ports in a row, at least 1
	proto     nat.Proto
	text      string // as it was given
}

var protocols = map[string]nat.Proto{"tcp": nat.TCP, "udp": nat.UDP, "sctp": nat.SCTP}

// parsePublication reads
//
//	[HOSTADDR:][HOSTPORT[-END]:]BOXPORT[-END][/tcp|udp|sctp]
//
// where an IPv6 HOSTADDR is in brackets.
func parsePublication(s string) (p publication, err error) {
	p = publication{proto: nat.TCP, text: s}
	fail := func(format string, args ...any) (publication, error) {
		return publication{}, fmt.Errorf("-p %s: %s", s, fmt.Sprintf(format, args...))
	}
	rest, proto, ok := strings.Cut(s, "/")
	if ok {
		if p.proto, ok = protocols[proto]; !ok {
			return fail("the protocol %q is none of tcp, udp and sctp", proto)
		}
	}
	if strings.HasPrefix(rest, "[") {
		addr, after, ok := strings.Cut(rest[1:], "]:")
		if !ok {
			return fail("there is no port behind the address in brackets")
		}
		if p.addr, err = netip.ParseAddr(addr); err != nil || !p.addr.Is6() {
			return fail("%q is no IPv6 address", addr)
		}
		rest = after
	}
	parts := strings.Split(rest, ":")
	if len(parts) == 3 && !p.addr.IsValid() {
		if p.addr, err = netip.ParseAddr(parts[0]); err != nil {
			return fail("%q is no address", parts[0])
		}
		parts = parts[1:]
	}
	if len(parts) > 2 {
		return fail("too many colons; an IPv6 address stands in brackets")
	}
	box := parts[len(parts)-1]
	if p.box, p.count, err = parseRange(box); err != nil {
		return fail("box port %q: %v", box, err)
	}
	if len(parts) == 1 || parts[0] == "" {
		return p, nil
	}
	var count uint16
	if p.host, count, err = parseRange(parts[0]); err != nil {
		return fail("host port %q: %v", parts[0], err)
	}
	if count != p.count {
		return fail("the ranges have different lengths, %d and %d", count, p.count)
	}
	return p, nil
}

// parseRange reads PORT or PORT-END.
func parseRange(s string) (first, count uint16, err error) {
	from, to, ranged := strings.Cut(s, "-")
	if first, err = parsePort(from); err != nil || !ranged {
		return first, 1, err
	}
	last, err := parsePort(to)
	if err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("the range ends before it begins")
	}
	return first, last - first + 1, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port (1 to 65535)", s)
	}
	return uint16(n), nil
}

// ports are the mappings that the publication stands for, one for each of the
// box's addresses that it concerns.
func (p publication) ports(owner string, box []netip.Prefix) ([]nat.Port, error) {
	var all []nat.Port
	for _, b := range box {
		host := p.addr
		switch {
		case !host.IsValid() && b.Addr().Is4():
			host = netip.IPv4Unspecified()
		case !host.IsValid():
			host = netip.IPv6Unspecified()
		case host.Is4() != b.Addr().Is4():
			continue
		}
		port := nat.Port{
			Proto: p.proto, Owner: owner,
			Host: netip.AddrPortFrom(host, p.host),
			Box:  netip.AddrPortFrom(b.Addr(), p.box),
		}
		if p.host != 0 && p.count > 1 {
			port.HostLast, port.BoxLast = p.host+p.count-1, p.box+p.count-1
		}
		all = append(all, port)
		for i := uint16(1); p.host == 0 && i < p.count; i++ {
			port.Box = netip.AddrPortFrom(b.Addr(), p.box+i)
			all = append(all, port)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("-p %s: the box has no address of that family", p.text)
	}
	return all, nil
}
