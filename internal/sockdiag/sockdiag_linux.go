package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"golang.org/x/sys/unix"
)

// State is the state of a socket, in TCP's numbers (net/tcp_states.h).
type State uint8

// States that callers ask for. A UDP socket without a peer is StateClosed.
const (
	StateClosed    State = 7
	StateListening State = 10
)

// String returns the name of the state: "listening".
func (s State) String() string {
	names := [...]string{"", "established", "syn-sent", "syn-received", "fin-wait-1", "fin-wait-2", "time-wait",
		"closed", "close-wait", "last-ack", "listening", "closing", "new"}
	if s > 0 && int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprint(uint8(s))
}

// Socket is a socket of TCP, UDP or SCTP.
type Socket struct {
	Proto  uint8 // unix.IPPROTO_TCP, ...
	Family uint8 // unix.AF_INET or unix.AF_INET6
	State  State
	Local  netip.AddrPort
	Remote netip.AddrPort // unspecified, with port 0, without a peer
	Link   int            // the index of the link that it is bound to; 0 is none
	UID    uint32
	Inode  uint32 // as in the links of /proc/PID/fd; 0 of one that no process has
	V6Only bool   // of IPv6: it takes no IPv4
	Mark   uint32 // 0 for a user without CAP_NET_ADMIN in the namespace
}

// Network returns the name of protocol and family: "tcp", "udp6".
func (s Socket) Network() string {
	name := ""
	switch s.Proto {
	case unix.IPPROTO_TCP:
		name = "tcp"
	case unix.IPPROTO_UDP:
		name = "udp"
	case unix.IPPROTO_SCTP:
		name = "sctp"
	default:
		name = fmt.Sprintf("protocol %d, ", s.Proto)
	}
	if s.Family == unix.AF_INET6 {
		name += "6"
	}
	return name
}

// Both reports whether an IPv6 socket on all addresses takes IPv4, too.
func (s Socket) Both() bool {
	return s.Family == unix.AF_INET6 && !s.V6Only && s.Local.Addr() == netip.IPv6Unspecified()
}

// String writes the socket as a line: "tcp listening from 10.88.0.1:80 to 0.0.0.0:0".
func (s Socket) String() string {
	return fmt.Sprintf("%s %v from %v to %v", s.Network(), s.State, s.Local, s.Remote)
}

// Query says which sockets to list.
type Query struct {
	Proto  uint8
	States uint32 // a bit for each State, 1<<StateListening; 0 is all
	Port   uint16 // the local port; 0 is all
}

// Waiting asks for the sockets of a protocol that wait for visitors: listening ones, and of UDP
// those without a peer.
func Waiting(proto uint8) Query {
	if proto == unix.IPPROTO_UDP {
		return Query{Proto: proto, States: 1 << StateClosed}
	}
	return Query{Proto: proto, States: 1 << StateListening}
}

// Sizes and attributes of linux/inet_diag.h that golang.org/x/sys/unix lacks.
const (
	requestLen = 56 // struct inet_diag_req_v2
	messageLen = 72 // struct inet_diag_msg
	attrV6Only = 11 // INET_DIAG_SKV6ONLY
	attrMark   = 15 // INET_DIAG_MARK
	everyState = 1<<12 - 1
)

// List lists the sockets of both families, those of IPv4 first. known is false if the kernel
// can list no family of the protocol: it has no module for it.
func List(ctx context.Context, ns nsconn.NS, q Query) (all []Socket, known bool, err error) {
	c, err := nsconn.Shared(ns, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, false, err
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		// struct inet_diag_req_v2: family, protocol, extensions, padding, states, and a socket's
		// id, which begins with the ports.
		body := make([]byte, requestLen)
		body[0], body[1] = family, q.Proto
		states := q.States
		if states == 0 {
			states = everyState
		}
		binary.NativeEndian.PutUint32(body[4:], states)
		binary.BigEndian.PutUint16(body[8:], q.Port)
		had := len(all)
		err := c.Dump(ctx, nl.Request{Type: unix.SOCK_DIAG_BY_FAMILY, Body: body}, func() { all = all[:had] }, func(m nl.Message) error {
			s, err := decode(m.Body, q.Proto)
			if err == nil {
				all = append(all, s)
			}
			return err
		})
		if isAbsent(err) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		known = true
	}
	return all, known, nil
}

// Listeners lists the sockets of protocols that wait for visitors; without protocols, those of TCP
// and UDP. A protocol that the kernel does not have has none.
func Listeners(ctx context.Context, ns nsconn.NS, protos ...uint8) (all []Socket, err error) {
	if protos == nil {
		protos = []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}
	}
	for _, proto := range protos {
		some, _, err := List(ctx, ns, Waiting(proto))
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

var errShort = errors.New("malformed reply: a socket without its header")

// decode reads a struct inet_diag_msg and the attributes behind it.
func decode(b []byte, proto uint8) (s Socket, err error) {
	if len(b) < messageLen {
		return s, errShort
	}
	s = Socket{
		Proto: proto, Family: b[0], State: State(b[1]),
		Local: endpoint(b[0], b[8:24], b[4:6]), Remote: endpoint(b[0], b[24:40], b[6:8]),
		Link: int(int32(binary.NativeEndian.Uint32(b[40:]))), UID: binary.NativeEndian.Uint32(b[64:]), Inode: binary.NativeEndian.Uint32(b[68:]),
	}
	w := nl.Walk(b[messageLen:])
	for w.Next() {
		switch w.Type() {
		case attrV6Only:
			s.V6Only = w.U8() != 0
		case attrMark:
			s.Mark = w.U32()
		}
	}
	return s, w.Err()
}

func endpoint(family byte, addr, port []byte) netip.AddrPort {
	if family == unix.AF_INET {
		addr = addr[:4]
	}
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// isAbsent reports whether the kernel has no such protocol, or no module for it.
func isAbsent(err error) bool {
	var refused *nl.Error
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Errno {
	case unix.ENOENT, unix.EINVAL, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT:
		return true
	}
	return false
}
