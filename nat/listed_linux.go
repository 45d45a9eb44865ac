package nat

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// The ports of a long range are kept from programs of the host by
// net.ipv4.ip_local_reserved_ports instead of thousands of sockets: the kernel
// gives none of them to a socket that asks for any port. A program that asks for
// one of them by number gets it. The setting is the administrator's, too: what of
// it is ours is recorded in the set listed, as element of protocol 0, for all.

const (
	listedSetting = "net.ipv4.ip_local_reserved_ports"
	localRange    = "net.ipv4.ip_local_port_range"
)

// portSet is a set of ports.
type portSet [65536 / 64]uint64

func (s *portSet) add(first, last uint16) {
	for p := int(first); p <= int(last); p++ {
		s[p/64] |= 1 << (p % 64)
	}
}

func (s *portSet) has(p int) bool { return s[p/64]&(1<<(p%64)) != 0 }

// runs calls fn with each row of consecutive ports.
func (s *portSet) runs(fn func(first, last uint16)) {
	for p := 0; p < 65536; p++ {
		if !s.has(p) {
			continue
		}
		first := p
		for p < 65535 && s.has(p+1) {
			p++
		}
		fn(uint16(first), uint16(p))
	}
}

// String writes the set as the setting does: "80,8000-8010".
func (s *portSet) String() string {
	var all []string
	s.runs(func(first, last uint16) {
		if first == last {
			all = append(all, strconv.Itoa(int(first)))
		} else {
			all = append(all, fmt.Sprintf("%d-%d", first, last))
		}
	})
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
			return nil, fmt.Errorf("%s: cannot read %q", listedSetting, part)
		}
		s.add(uint16(first), uint16(last))
	}
	return s, nil
}

// relisting is what a change of published ports changes of the setting.
type relisting struct {
	ns     *netns.NS
	is     portSet // the setting
	less   portSet // the setting without what is no longer needed
	want   portSet // what it is to be in the end
	record []item  // what of it is ours then
}

// relist plans for a change of published ports, and returns what is recorded. It is
// nil if the change has to do with no long range.
func (n *NAT) relist(ctx context.Context, c nft.Conn, del []item, add []Port) (l *relisting, recorded []item, err error) {
	long := func(p Port) bool { return p.isRange() && p.count() > maxRange }
	longItem := func(it item) bool {
		p, err := decodeItem(it)
		return err == nil && isPortSet(it.set) && long(p)
	}
	if n.unreserved || !slices.ContainsFunc(del, longItem) && !slices.ContainsFunc(add, long) {
		return nil, nil, nil
	}
	gone := make(map[place]bool, len(del))
	for _, it := range del {
		gone[it.place()] = true
	}
	after := slices.Clone(add)
	for _, f := range families {
		elems, err := c.Elements(ctx, n.table, f.rng)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range elems {
			it := item{f.rng, e}
			if gone[it.place()] {
				continue
			}
			p, err := decodeItem(it)
			if err != nil {
				return nil, nil, err
			}
			after = append(after, p)
		}
	}
	recorded, err = n.recordedListing(ctx, c)
	if err == nil {
		l, err = n.planListing(ctx, after, recorded)
	}
	return l, recorded, err
}

// recordedListing reads what of the setting is ours.
func (n *NAT) recordedListing(ctx context.Context, c nft.Conn) (items []item, err error) {
	elems, err := c.Elements(ctx, n.table, "listed")
	for _, e := range elems {
		items = append(items, item{"listed", e})
	}
	return items, err
}

// unlist takes from the setting all that is ours.
func (n *NAT) unlist(ctx context.Context, c nft.Conn) error {
	recorded, err := n.recordedListing(ctx, c)
	if err != nil {
		return err
	}
	l, err := n.planListing(ctx, nil, recorded)
	if err != nil {
		return err
	}
	return l.before(ctx)
}

// planListing plans for the ports that will be published, given what is recorded.
// Only what the kernel would give away matters (ip_local_port_range). It is nil if
// there is nothing to do.
func (n *NAT) planListing(ctx context.Context, ports []Port, recorded []item) (*relisting, error) {
	var need portSet
	long := false
	for _, p := range ports {
		if p.isRange() && p.count() > maxRange {
			need.add(p.Host.Port(), p.last())
			long = true
		}
	}
	if !long && len(recorded) == 0 {
		return nil, nil
	}
	if err := n.clipToLocal(ctx, &need); err != nil {
		return nil, err
	}
	text, err := n.ns.Sysctl(ctx, listedSetting)
	if err != nil {
		return nil, err
	}
	is, err := parsePortSet(text)
	if err != nil {
		return nil, err
	}
	var had, ours portSet
	for _, it := range recorded {
		if len(it.elem.Key) != 8 || len(it.elem.KeyEnd) != 8 {
			return nil, fmt.Errorf("set listed: malformed element: a key of %d bytes", len(it.elem.Key))
		}
		had.add(binary.BigEndian.Uint16(it.elem.Key[4:]), binary.BigEndian.Uint16(it.elem.KeyEnd[4:]))
	}
	l := &relisting{ns: n.ns, is: *is}
	for i := range ours {
		ours[i] = had[i]&need[i] | need[i]&^is[i]
		l.less[i] = is[i] &^ (had[i] &^ ours[i])
		l.want[i] = l.less[i] | ours[i]
	}
	ours.runs(func(first, last uint16) {
		key := func(port uint16) []byte { return binary.BigEndian.AppendUint32(make([]byte, 4, 8), uint32(port)<<16) }
		l.record = append(l.record, item{"listed", nft.Element{Key: key(first), KeyEnd: key(last)}})
	})
	return l, nil
}

// clipToLocal takes the ports away that the kernel gives to nobody.
func (n *NAT) clipToLocal(ctx context.Context, s *portSet) error {
	text, err := n.ns.Sysctl(ctx, localRange)
	if err != nil {
		return err
	}
	var first, last uint16
	if _, err := fmt.Sscan(text, &first, &last); err != nil {
		return fmt.Errorf("%s: %q: %w", localRange, text, err)
	}
	var local portSet
	local.add(first, last)
	for i := range s {
		s[i] &= local[i]
	}
	return nil
}

// before takes from the setting what is no longer needed: the setting before its
// record, which says what to take.
func (l *relisting) before(ctx context.Context) error {
	if l == nil {
		return nil
	}
	return l.set(ctx, &l.is, &l.less)
}

// after adds to the setting what is recorded now. A program that ends before it
// can leaves that to the next Sync.
func (l *relisting) after(ctx context.Context) error {
	if l == nil {
		return nil
	}
	return l.set(ctx, &l.less, &l.want)
}

// revert undoes before, when the transaction was refused.
func (l *relisting) revert(ctx context.Context) error {
	if l == nil {
		return nil
	}
	return l.set(context.WithoutCancel(ctx), &l.less, &l.is)
}

func (l *relisting) set(ctx context.Context, from, to *portSet) error {
	if *from == *to {
		return nil
	}
	// An empty list is a line end, which SetSysctl does not take.
	_, err := netns.Do(ctx, l.ns, func(context.Context) (any, error) {
		return nil, os.WriteFile("/proc/sys/"+strings.ReplaceAll(listedSetting, ".", "/"), []byte(to.String()+"\n"), 0)
	})
	return err
}
