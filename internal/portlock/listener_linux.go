package portlock

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
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Listener is a socket of the host that waits for visitors (sock_diag(7)).
type Listener struct {
	Range Range // one port
	both  bool  // an IPv6 socket on all addresses that takes IPv4, too
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

// Listeners reads the sockets of a protocol that wait for visitors in a namespace:
// listening ones of TCP and SCTP, unconnected ones of UDP. It reads those on one
// port, or all if that is 0. known is false if the kernel can list no family.
func Listeners(ctx context.Context, ns *netns.NS, proto uint8, port uint16) (all []Listener, known bool, err error) {
	c, err := nsconn.Shared(ns, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, false, err
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		body := make([]byte, diagRequest)
		body[0], body[1] = family, proto
		states := uint32(1 << 10) // TCP_LISTEN
		if proto == unix.IPPROTO_UDP {
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
		known = true
	}
	return all, known, nil
}

// decodeListener reads a struct inet_diag_msg; ok is false for a socket without a
// port.
func decodeListener(b []byte, proto uint8) (l Listener, ok bool, err error) {
	if len(b) < diagMessage {
		return l, false, errors.New("malformed reply: a socket without its header")
	}
	port := binary.BigEndian.Uint16(b[4:])
	a, _ := netip.AddrFromSlice(b[8:12])
	if b[0] == unix.AF_INET6 {
		a, _ = netip.AddrFromSlice(b[8:24])
	}
	l = Listener{
		Range: Range{proto, a.Unmap(), port, port},
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

// Overlaps reports whether the listener has a port of the range.
func (l Listener) Overlaps(r Range) bool {
	if l.both && r.Addr.Is4() {
		l.Range.Addr = netip.IPv4Unspecified()
	}
	return l.Range.Overlaps(r)
}

// unused checks that no other program waits on ranges, and returns the index of the
// first where one does. Those that are contested could not be bound. That is no fault if
// another Lock of the same name has bound them.
func (l *Lock) unused(ctx context.Context, ranges []Range, bare, contested []int) (int, error) {
	all := slices.Concat(bare, contested)
	only := uint16(0)
	if len(all) == 1 && ranges[all[0]].Count() == 1 {
		only = ranges[all[0]].First // the kernel reports no others then, of thousands perhaps
	}
	waiting := make(map[uint8]map[uint16][]Listener)
	for i, at := range all {
		r := ranges[at]
		if waiting[r.Proto] == nil {
			m, err := l.byPort(ctx, r.Proto, only)
			if err != nil {
				return at, fmt.Errorf("asking who listens: %w", err)
			}
			waiting[r.Proto] = m
		}
		ours := false
		for port := int(r.First); port <= int(r.Last); port++ {
			for _, o := range waiting[r.Proto][uint16(port)] {
				if o.Overlaps(r) && o.mark != l.mark {
					return at, inUse{o, owner(o.inode)}
				}
				ours = ours || o.Overlaps(r)
			}
		}
		if i >= len(bare) && !ours {
			return at, inUse{Listener{Range: r}, "another program"}
		}
	}
	return 0, nil
}

// byPort reads the listeners of a protocol.
func (l *Lock) byPort(ctx context.Context, proto uint8, only uint16) (map[uint16][]Listener, error) {
	all, _, err := Listeners(ctx, l.ns, proto, only)
	m := make(map[uint16][]Listener)
	for _, o := range all {
		m[o.Range.First] = append(m[o.Range.First], o)
	}
	return m, err
}

// inUse is a host port that a program of the host uses.
type inUse struct {
	l   Listener
	who string
}

func (e inUse) Error() string {
	return fmt.Sprintf("the host port is in use: %s has %s %v", e.who, protoName(e.l.Range.Proto), netip.AddrPortFrom(e.l.Range.Addr, e.l.Range.First))
}

func (e inUse) Is(target error) bool { return target == os.ErrExist }

func (e inUse) Unwrap() error { return unix.EADDRINUSE }

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
