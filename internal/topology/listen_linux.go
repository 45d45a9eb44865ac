package topology

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Sizes of struct inet_diag_req_v2 and inet_diag_msg (linux/inet_diag.h).
const (
	diagReqLen = 56
	diagMsgLen = 72
)

// Socket states (net/tcp_states.h). A UDP socket without a peer is closed.
const (
	stateClosed    = 7
	stateListening = 10
)

var errShort = errors.New("the kernel's message about a socket is too short")

// listening lists the sockets of a namespace that wait for connections or datagrams (sock_diag(7)).
func listening(ctx context.Context, ns *netns.NS) ([]Listener, error) {
	c, err := nsconn.Shared(ns, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	var all []Listener
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		for _, kind := range []struct {
			name         string
			proto, state byte
		}{{"tcp", unix.IPPROTO_TCP, stateListening}, {"udp", unix.IPPROTO_UDP, stateClosed}} {
			body := make([]byte, diagReqLen)
			body[0], body[1] = family, kind.proto
			binary.NativeEndian.PutUint32(body[4:], 1<<kind.state)
			var found []Listener
			err := c.Dump(ctx, nl.Request{Type: unix.SOCK_DIAG_BY_FAMILY, Body: body}, func() { found = nil }, func(m nl.Message) error {
				if len(m.Body) < diagMsgLen {
					return errShort
				}
				found = append(found, Listener{Proto: kind.name, Addr: local(family, m.Body)})
				return nil
			})
			if err != nil && !errors.Is(err, unix.ENOENT) { // the kernel has no IPv6, or no module for the protocol
				return all, err
			}
			all = append(all, found...)
		}
	}
	return all, nil
}

// local is the address of a socket's own end.
func local(family byte, b []byte) netip.AddrPort {
	n := 16
	if family == unix.AF_INET {
		n = 4
	}
	a, _ := netip.AddrFromSlice(b[8 : 8+n])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[4:]))
}
