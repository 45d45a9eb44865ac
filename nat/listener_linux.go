package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// A listener is a socket of the host that waits for visitors (sock_diag(7)).
type listener struct {
	claim claim
	both  bool // an IPv6 socket on all addresses that takes IPv4, too
	inode uint32
	mark  uint32
}

// Attributes and sizes of linux/inet_diag.h that golang.org/x/sys/unix lacks.
const (
	diagRequest = 56 // struct inet_diag_req_v2
	diagMessage = 72 // struct inet_diag_msg
	diagV6Only  = 11 // INET_DIAG_SKV6ONLY
	diagMark    = 15 // INET_DIAG_MARK, for those with CAP_NET_ADMIN
)

// listeners reads the sockets of a protocol that wait for visitors in a namespace:
// TCP and SCTP that listen, UDP that are not connected; those on one port, or all if
// it is 0. Where the kernel cannot tell of any family, told is false.
func listeners(ctx context.Context, ns *netns.NS, proto Proto, port uint16) (all []listener, told bool, err error) {
	c, err := ns.Exchange(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, false, err
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		body := make([]byte, diagRequest)
		body[0], body[1] = family, byte(proto)
		states := uint32(1 << 10) // TCP_LISTEN
		if proto == UDP {
			states = 1 << 7 // TCP_CLOSE: what a UDP socket without a peer is in
		}
		binary.NativeEndian.PutUint32(body[4:], states)
		binary.BigEndian.PutUint16(body[8:], port)
		had := len(all)
		err := c.Dump(ctx, nl.Request{Type: unix.SOCK_DIAG_BY_FAMILY, Body: body}, func() { all = all[:had] }, func(m nl.Message) error {
			l, ok, err := decodeListener(m.Body, proto)
			if ok {
				all = append(all, l)
			}
			return err
		})
		var refused *nl.Error
		if errors.As(err, &refused) { // no such protocol, or no module for it
			continue
		}
		if err != nil {
			return nil, false, err
		}
		told = true
	}
	return all, told, nil
}

// decodeListener reads a struct inet_diag_msg; ok is false for a socket without a
// port.
func decodeListener(b []byte, proto Proto) (l listener, ok bool, err error) {
	if len(b) < diagMessage {
		return l, false, errors.New("malformed reply: a socket without its header")
	}
	port := binary.BigEndian.Uint16(b[4:])
	a, _ := netip.AddrFromSlice(b[8:12])
	if b[0] == unix.AF_INET6 {
		a, _ = netip.AddrFromSlice(b[8:24])
	}
	l = listener{
		claim: claim{proto, a.Unmap(), port, port},
		both:  a == netip.IPv6Unspecified(),
		inode: binary.NativeEndian.Uint32(b[68:]),
	}
	w := nl.Walk(b[diagMessage:])
	for w.Next() {
		switch w.Type() {
		case diagV6Only:
			l.both = l.both && w.U8() == 0
		case diagMark:
			l.mark = w.U32()
		}
	}
	return l, port != 0, w.Err()
}

// meets reports whether the listener and the claim take the same port.
func (l listener) meets(c claim) bool {
	if l.both && c.addr.Is4() {
		l.claim.addr = netip.IPv4Unspecified()
	}
	return l.claim.meets(c)
}

// unused makes sure that no other program waits on the ports. Those that are
// contested could not be bound; that is no matter if it is another NAT of the same
// table that has bound them: were they published, the table would say so.
func (n *NAT) unused(ctx context.Context, bare, contested []Port) (Port, error) {
	mark := n.mark
	ports := slices.Concat(bare, contested)
	only := uint16(0)
	if len(ports) == 1 && ports[0].count() == 1 {
		only = ports[0].Host.Port() // the kernel tells no more then, of thousands perhaps
	}
	waiting := make(map[Proto]map[uint16][]listener)
	for i, p := range ports {
		if waiting[p.Proto] == nil {
			all, _, err := listeners(ctx, n.ns, p.Proto, only)
			if err != nil {
				return p, fmt.Errorf("asking who listens: %w", err)
			}
			m := make(map[uint16][]listener)
			for _, l := range all {
				m[l.claim.lo] = append(m[l.claim.lo], l)
			}
			waiting[p.Proto] = m
		}
		c := p.claim()
		ours := false
		for port := int(c.lo); port <= int(c.hi); port++ {
			for _, l := range waiting[p.Proto][uint16(port)] {
				if l.meets(c) && l.mark != mark {
					return p, inUse(l)
				}
				ours = ours || l.meets(c)
			}
		}
		if i >= len(bare) && !ours {
			return p, errInUse{who: "another program", l: listener{claim: c}}
		}
	}
	return Port{}, nil
}

// errInUse is a host port that a program of the host uses.
type errInUse struct {
	l   listener
	who string
}

func inUse(l listener) error { return errInUse{l, owner(l.inode)} }

func (e errInUse) Error() string {
	return fmt.Sprintf("the host port is in use: %s has %v %v", e.who, e.l.claim.proto, netip.AddrPortFrom(e.l.claim.addr, e.l.claim.lo))
}

func (e errInUse) Is(target error) bool { return target == os.ErrExist }

func (e errInUse) Unwrap() error { return unix.EADDRINUSE }

// owner names the program that has a socket open, as far as this one may see.
func owner(inode uint32) string {
	link := fmt.Sprintf("socket:[%d]", inode)
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		dir := filepath.Join("/proc", p.Name())
		fds, _ := os.ReadDir(dir + "/fd")
		for _, fd := range fds {
			if to, err := os.Readlink(dir + "/fd/" + fd.Name()); err != nil || to != link {
				continue
			}
			name, _ := os.ReadFile(dir + "/comm")
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), p.Name())
		}
	}
	return "another program"
}
