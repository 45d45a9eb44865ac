package topology

import (
	"context"
	"net/netip"

	"github.com/boxwire/boxwire/internal/sockdiag"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// listening lists the sockets of a namespace that wait for connections or datagrams.
func listening(ctx context.Context, ns *netns.NS) (all []Listener, err error) {
	sockets, err := sockdiag.Listeners(ctx, ns)
	for _, s := range sockets {
		proto := "tcp"
		if s.Proto == unix.IPPROTO_UDP {
			proto = "udp"
		}
		all = append(all, Listener{Proto: proto, Addr: netip.AddrPortFrom(s.Local.Addr().Unmap(), s.Local.Port())})
	}
	return all, err
}
