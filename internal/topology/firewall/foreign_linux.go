package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/internal/trace"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// readForeign reads the ports that other tables than those of the library translate: Docker's,
// netavark's, those of CNI's portmap.
func readForeign(ctx context.Context, ns *netns.NS, ours map[string]bool, f *topology.Firewall) error {
	c, err := nsconn.Shared(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	rules, err := trace.Read(ctx, nft.New(c), func(family byte, table string) bool {
		return family == unix.NFPROTO_INET && ours[table]
	})
	if err != nil {
		return err
	}
	forwards, err := rules.Forwards(ctx)
	for _, x := range forwards.All {
		if p, ok := portOf(x); ok {
			f.Ports = append(f.Ports, p)
		} else {
			f.Notes = append(f.Notes, fmt.Sprintf("table %s %s translates %v", families[x.Family], x.Table, x))
		}
	}
	for _, x := range forwards.Unclear {
		f.Notes = append(f.Notes, fmt.Sprintf("table %s %s translates ports in a way that is not understood: %v", families[x.Family], x.Table, x))
	}
	return err
}

// families are the names of families of tables (nft(8)).
var families = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_BRIDGE: "bridge"}

// protocols are those that have ports.
var protocols = map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_DCCP: "dccp"}

// portOf returns a forward as a port, if it is one of a protocol and an address or all of them, to
// another address.
func portOf(x trace.Forward) (p topology.Port, ok bool) {
	p = topology.Port{Table: families[x.Family] + " " + x.Table, Proto: protocols[x.Proto], If: strings.Join(x.If, ", ")}
	addr := x.Addr.Addr()
	switch {
	case !x.Addr.IsValid() || x.Addr.Bits() == 0:
		addr = netip.IPv4Unspecified()
		if x.V6 {
			addr = netip.IPv6Unspecified()
		}
	case !x.Addr.IsSingleIP():
		return p, false
	}
	to := x.To.Port()
	if to == 0 {
		to = x.First
	}
	p.Host, p.Box = netip.AddrPortFrom(addr, x.First), netip.AddrPortFrom(x.To.Addr(), to)
	if x.Last > x.First {
		p.Last = x.Last
	}
	return p, p.Proto != "" && x.To.Addr().IsValid() && x.First > 0
}

// legacy notes that there are rules of iptables-legacy, which only iptables-legacy itself can read.
func legacy(ctx context.Context, ns *netns.NS, f *topology.Firewall) error {
	notes, err := netns.Do(ctx, ns, func(context.Context) (notes []string, err error) {
		for _, x := range [][2]string{{"ip_tables_names", "iptables-legacy"}, {"ip6_tables_names", "ip6tables-legacy"}} {
			b, err := os.ReadFile("/proc/thread-self/net/" + x[0])
			switch {
			case err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission):
				return notes, err
			case strings.Contains(string(b), "nat"):
				notes = append(notes, "rules of "+x[1]+" translate ports, perhaps; they cannot be read")
			}
		}
		return notes, nil
	})
	f.Notes = append(f.Notes, notes...)
	return err
}
