package portlock

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/plain"
	"github.com/boxwire/boxwire/internal/sockdiag"
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

// Listeners reads the sockets of a protocol that wait for visitors in a namespace:
// listening ones of TCP and SCTP, unconnected ones of UDP. It reads those on one
// port, or all if that is 0. known is false if the kernel can list no family.
func Listeners(ctx context.Context, ns *netns.NS, proto uint8, port uint16) (all []Listener, known bool, err error) {
	q := sockdiag.Waiting(proto)
	q.Port = port
	sockets, known, err := sockdiag.List(ctx, ns, q)
	for _, s := range sockets {
		if s.Local.Port() != 0 {
			all = append(all, listenerOf(s))
		}
	}
	return all, known, err
}

func listenerOf(s sockdiag.Socket) Listener {
	at := s.Local.Port()
	return Listener{Range: Range{s.Proto, s.Local.Addr().Unmap(), at, at}, both: s.Both(), inode: s.Inode, mark: s.Mark}
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
			return called(name, p.Name())
		}
	}
	return "another program"
}

// called names a process, which any user may have named.
func called(comm []byte, pid string) string {
	return fmt.Sprintf("%s (process %s)", plain.Text(strings.TrimSpace(string(comm))), pid)
}
