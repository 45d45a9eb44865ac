package nat

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/portlock"
	"github.com/boxwire/boxwire/netns"
)

// net.ipv4.ip_local_reserved_ports reserves the ports of long ranges, instead of thousands of
// sockets. The kernel gives none of them to a socket that asks for any port. A program that asks
// for one by number gets it. Administrators use the setting, too. So the set "listed" records which
// of the ports are ours, as elements of protocol 0.
//
// The setting holds for every protocol, family and address, and outlives the process. If all ports
// of net.ipv4.ip_local_port_range were reserved, no program of the host could connect
// (EADDRNOTAVAIL). So at most half of that range is reserved, and the last ports of the ranges are
// not.

const (
	reservedSetting = "net.ipv4.ip_local_reserved_ports"
)

// portSet is a set of ports.
type portSet [65536 / 64]uint64

func (s *portSet) add(first, last uint16) {
	for p := int(first); p <= int(last); p++ {
		s[p/64] |= 1 << (p % 64)
	}
}

func (s *portSet) has(p int) bool { return s[p/64]&(1<<(p%64)) != 0 }

func (s *portSet) count() (n int) {
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// runs calls fn for each run of consecutive ports.
func (s *portSet) runs(yield func(first, last uint16) bool) {
	for p := 0; p < 65536; p++ {
		if !s.has(p) {
			continue
		}
		first := p
		for p < 65535 && s.has(p+1) {
			p++
		}
		if !yield(uint16(first), uint16(p)) {
			return
		}
	}
}

// String writes the set as the setting does: "80,8000-8010".
func (s *portSet) String() string {
	var all []string
	for first, last := range s.runs {
		if first == last {
			all = append(all, strconv.Itoa(int(first)))
		} else {
			all = append(all, fmt.Sprintf("%d-%d", first, last))
		}
	}
	return strings.Join(all, ",")
}

func parsePortSet(text string) (*portSet, error) {
	s := new(portSet)
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		first, err := strconv.ParseUint(low, 10, 16)
		last, lerr := strconv.ParseUint(high, 10, 16)
		if err != nil || lerr != nil {
			return nil, fmt.Errorf("%s: cannot read %q", reservedSetting, part)
		}
		s.add(uint16(first), uint16(last))
	}
	return s, nil
}

// reservedPorts is a change of the setting. Before the commit the setting shrinks by what is not
// needed any more, after it the setting grows. So the record in the table always includes all our
// ports in the setting.
//
// The change of a port depends on three facts: the setting has it (set), the table records it as
// ours (ours), and a range to be published needs it (need):
//
//	set  ours  need    shrunk  grown  recorded
//	 -    -     -        -       -       -
//	 -    -     x        -       x       x
//	 -    x     -        -       -       -      another program removed it
//	 -    x     x        -       x       x
//	 x    -     -        x       x       -      the administrator's
//	 x    -     x        x       x       -      the administrator's, and stays so
//	 x    x     -        -       -       -
//	 x    x     x        x       x       x
type reservedPorts struct {
	ns     *netns.NS
	set    portSet // the setting before
	shrunk portSet
	grown  portSet
	record []item // what is recorded in the table as ours
}

// plan computes the change, and returns the ports to record as ours.
func (r *reservedPorts) plan(ours, need *portSet) (recorded portSet) {
	for i, set := range r.set {
		recorded[i] = need[i] & (ours[i] | ^set)
		r.shrunk[i] = set &^ (ours[i] &^ need[i])
		r.grown[i] = r.shrunk[i] | recorded[i]
	}
	return recorded
}

// shrink removes the ports that are not needed any more, before the commit that deletes their
// record.
func (r *reservedPorts) shrink(ctx context.Context) error {
	if r == nil {
		return nil
	}
	return r.write(ctx, &r.set, &r.shrunk)
}

// grow adds the recorded ports. If the process ends before that, the next Sync adds them.
func (r *reservedPorts) grow(ctx context.Context) error {
	if r == nil {
		return nil
	}
	return r.write(ctx, &r.shrunk, &r.grown)
}

// rollback undoes shrink if nothing was committed.
func (r *reservedPorts) rollback(ctx context.Context) error {
	if r == nil {
		return nil
	}
	return r.write(ctx, &r.shrunk, &r.set)
}

func (r *reservedPorts) write(ctx context.Context, from, to *portSet) error {
	if *from == *to {
		return nil
	}
	// An empty list is a line end, which SetSysctl does not take.
	_, err := netns.Do(ctx, r.ns, func(context.Context) (any, error) {
		return nil, os.WriteFile("/proc/sys/"+strings.ReplaceAll(reservedSetting, ".", "/"), []byte(to.String()+"\n"), 0)
	})
	return err
}

// unreserve removes our ports from the setting.
func (n *NAT) unreserve(ctx context.Context, c nft.Conn) error {
	recorded, err := n.readItems(ctx, c, "listed")
	if err != nil {
		return err
	}
	r, err := n.planReserved(ctx, nil, recorded)
	if err != nil {
		return err
	}
	return r.shrink(ctx)
}

// planReserved plans for the ports that will be published, given the recorded items. Only ports in
// ip_local_port_range matter: the kernel gives away no others. The plan is nil if there is nothing
// to do.
func (n *NAT) planReserved(ctx context.Context, ports []Port, recorded []item) (*reservedPorts, error) {
	var need, ours, theirs portSet
	if !slices.ContainsFunc(ports, Port.isLong) && len(recorded) == 0 {
		return nil, nil
	}
	first, last, err := portlock.LocalRange(ctx, n.ns)
	if err != nil {
		return nil, err
	}
	local := new(portSet)
	local.add(first, last)
	text, err := n.ns.Sysctl(ctx, reservedSetting)
	if err != nil {
		return nil, err
	}
	set, err := parsePortSet(text)
	if err != nil {
		return nil, err
	}
	for _, it := range recorded {
		end := lastKey(it.elem)
		if len(it.elem.Key) != 8 || len(end) != 8 {
			return nil, fmt.Errorf("set listed: malformed element: a key of %d bytes", len(it.elem.Key))
		}
		ours.add(binary.BigEndian.Uint16(it.elem.Key[4:]), binary.BigEndian.Uint16(end[4:]))
	}
	for _, p := range ports {
		if p.isLong() {
			need.add(p.Host.Port(), p.last())
		}
	}
	for i := range theirs {
		theirs[i] = set[i] &^ ours[i]
	}
	need.bound(local, &theirs)
	r := &reservedPorts{ns: n.ns, set: *set}
	kept := r.plan(&ours, &need)
	for first, last := range kept.runs {
		r.record = append(r.record, item{"listed", nft.Element{Key: appendKey(nil, netip.Addr{}, 0, first), KeyEnd: appendKey(nil, netip.Addr{}, 0, last)}})
	}
	return r, nil
}

// bound takes from the set what is not among the local ports, and the last ones as
// long as more than half of those would be listed, theirs included.
func (s *portSet) bound(local, theirs *portSet) {
	left := local.count() / 2
	for i := range s {
		left -= bits.OnesCount64(theirs[i] & local[i])
	}
	for i := range s {
		s[i] &= local[i]
		fresh := s[i] &^ theirs[i]
		for ; fresh != 0; fresh &= fresh - 1 { // from the lowest bit on
			if left--; left < 0 {
				s[i] &^= fresh & -fresh
			}
		}
	}
}
