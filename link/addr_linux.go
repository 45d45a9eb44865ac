package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

var addrTable = &table[Addr]{
	encode: encodeAddr, subject: addrSubject, cause: addrCause, undo: undoAddr, verify: verifyAddrs,
	list: func(ctx context.Context, l Link) ([]Addr, error) { return l.addrs(ctx) },
	ready: func(ctx context.Context, b *batch[Addr]) error {
		return awaitLocal(ctx, b.link.ns, b.conn, b.link.Index, nodad(b.list))
	},
}

// AddPrefixes adds addresses to the link in one send: all of them or none. An
// address that the link has is os.ErrExist. An IPv4 address gets its subnet's
// broadcast address, and an IPv6 address no duplicate address detection (see
// Spec.DAD). On a link that is up they can be dialled as soon as AddPrefixes
// returns; it waits for the kernel, which answers earlier. [Link.AddAddrs] adds
// addresses with other properties.
//
//	err := eth.AddPrefixes(ctx, netip.MustParsePrefix("10.88.0.2/16"))
func (l Link) AddPrefixes(ctx context.Context, addrs ...netip.Prefix) error {
	full := make([]Addr, len(addrs))
	for i, p := range addrs {
		full[i] = StaticAddr(p)
	}
	return l.addAddrs(ctx, "link.AddPrefixes", full, checkAddrs(addrs))
}

// AddAddrs adds addresses with all their properties, all of them or none. It fills
// nothing in: an IPv6 address without AddrNoDAD undergoes duplicate address
// detection, and an IPv4 address without Broadcast has none. [StaticAddr] returns
// an Addr with both. An Addr of [Link.Addrs] makes the same address again.
func (l Link) AddAddrs(ctx context.Context, addrs ...Addr) error {
	return l.addAddrs(ctx, "link.AddAddrs", addrs, checkFullAddrs(addrs))
}

func (l Link) addAddrs(ctx context.Context, op string, addrs []Addr, bad error) error {
	b, err := addrTable.batch(l, op, editAdd, addrs, bad)
	if err != nil || len(addrs) == 0 {
		return err
	}
	return b.allOrNone(ctx)
}

// ReplaceAddrs adds addresses to the link, and changes those that it has, all or
// none. It changes lifetimes, metric and protocol, and of IPv6 addresses the peer
// and flags. The kernel cannot change the label, broadcast address and scope of an
// address, the flags of an IPv4 address, or the length of an IPv6 prefix. A
// difference there is errors.ErrUnsupported; delete such an address first.
func (l Link) ReplaceAddrs(ctx context.Context, addrs ...Addr) error {
	b, err := addrTable.batch(l, "link.ReplaceAddrs", editReplace, addrs, checkFullAddrs(addrs))
	if err != nil || len(addrs) == 0 {
		return err
	}
	have, err := readAddrs(ctx, b.conn, l.Index)
	if err != nil {
		return b.fail(err)
	}
	b.before = make([]*Addr, len(addrs))
	for i := range addrs {
		b.before[i] = addrs[i].in(have)
		b.reqs[i] = replaceAddr(l.Index, &addrs[i], b.before[i])
	}
	return b.allOrNone(ctx)
}

// in returns the address of the list that takes the place of a; nil if there is none.
func (a *Addr) in(list []Addr) *Addr {
	for i := range list {
		if list[i].same(a) {
			return &list[i]
		}
	}
	return nil
}

// verifyAddrs reads the addresses back: the kernel ignores what it does not know or
// cannot change. Of a new address that is the protocol.
func verifyAddrs(ctx context.Context, b *batch[Addr]) error {
	if b.how == editAdd && !slices.ContainsFunc(b.list, func(a Addr) bool { return a.Protocol != 0 }) {
		return nil
	}
	have, err := readAddrs(ctx, b.conn, b.link.Index)
	if err != nil {
		return b.fail(fmt.Errorf("reading the addresses back: %w", err))
	}
	for i := range b.list {
		a := &b.list[i]
		got := a.in(have)
		if got == nil {
			continue // removed by another program since
		}
		if what := a.differs(got, b.link.Name); what != "" {
			return b.failItem(a, refuse.As(errors.ErrUnsupported, "the kernel did not take %s", what))
		}
	}
	return nil
}

// differs names the first property that was asked for and is not there.
func (a *Addr) differs(got *Addr, name string) string {
	want := *a
	if want.Prefix.Addr().Is6() {
		want.Scope = got.Scope
	} else if want.Label == "" {
		want.Label = name
	}
	const v4 = AddrNoPrefixRoute | AddrMulticastJoin
	mask := AddrFlags(v4)
	if want.Prefix.Addr().Is6() {
		// NoDAD and Optimistic are over once detection is.
		mask |= AddrHome | AddrManageTemp
	}
	switch {
	case want.Prefix != got.Prefix:
		return fmt.Sprintf("the prefix length, which is %d", got.Prefix.Bits())
	case want.Peer != got.Peer:
		return "the peer"
	case want.Broadcast != got.Broadcast:
		return "the broadcast address"
	case want.Label != got.Label:
		return fmt.Sprintf("the label, which is %q", got.Label)
	case want.Scope != got.Scope:
		return "the scope"
	case want.Flags&mask != got.Flags&mask:
		return "the flags"
	case want.Metric != got.Metric && !(want.Metric == 0 && got.Metric == defaultMetric6 && want.Prefix.Addr().Is6()):
		return "the metric"
	case want.Protocol != got.Protocol:
		return "the protocol (Linux >= 5.18)"
	}
	return ""
}

// DeleteAddrs deletes addresses of the link, each with its prefix length, in one
// send. One that the link does not have is os.ErrNotExist. The others are deleted
// all the same; the error names each that was not. An IPv4 address with a Peer
// outside its own subnet is deleted by [Link.FlushAddrs] only.
//
// With the first IPv4 address of a subnet the kernel removes the others of that
// subnet, unless the sysctl promote_secondaries is set.
func (l Link) DeleteAddrs(ctx context.Context, addrs ...netip.Prefix) error {
	full := make([]Addr, len(addrs))
	for i, p := range addrs {
		full[i] = Addr{Prefix: p}
	}
	return addrTable.each(ctx, l, "link.DeleteAddrs", editDelete, full, checkAddrs(addrs))
}

// FlushAddrs deletes the addresses of the link for which match returns true, with
// nil all of them, the kernel's own link-local ones included. An address that the
// kernel removes with another is no error (see [Link.DeleteAddrs]).
func (l Link) FlushAddrs(ctx context.Context, match func(Addr) bool) error {
	return addrTable.flush(ctx, l, "link.FlushAddrs", match)
}

// Addrs returns the link's addresses, IPv4 first, in the kernel's order. A link
// that is gone is os.ErrNotExist.
func (l Link) Addrs(ctx context.Context) ([]Addr, error) {
	return addrTable.read(ctx, l, "link.Addrs")
}

// ListAddrs returns the addresses of all links of the namespace, IPv4 first, by
// link. The list is complete: if a change during the read may have hidden an
// address, the list is read again. After 50 attempts the error is [ErrInterrupted].
func ListAddrs(ctx context.Context, ns *netns.NS) ([]Addr, error) {
	conn, err := route(ns)
	var addrs []Addr
	if err == nil {
		addrs, err = readAddrs(ctx, conn, 0)
	}
	if err != nil {
		return nil, fail.New("link.ListAddrs", ns, "addresses", err)
	}
	return addrs, nil
}

func (l Link) addrs(ctx context.Context) ([]Addr, error) {
	if err := l.bound(); err != nil {
		return nil, err
	}
	conn, err := route(l.ns)
	if err != nil {
		return nil, err
	}
	return readAddrs(ctx, conn, l.Index)
}

// readAddrs reads the addresses of a link, or of all links with index 0.
func readAddrs(ctx context.Context, conn *nl.Conn, index int) ([]Addr, error) {
	label := ""
	return listWhole(ctx, conn, getAddrs(index), (*Addr).key, func(m nl.Message, a *Addr) (bool, error) {
		if m.Type != unix.RTM_NEWADDR || len(m.Body) == 0 {
			return false, nil
		}
		if f := m.Body[0]; f != unix.AF_INET && f != unix.AF_INET6 {
			return false, nil
		}
		a.Label = label
		if err := decodeAddr(a, m.Body); err != nil {
			return false, err
		}
		if a.Label != "" {
			label = a.Label
		}
		return index == 0 || a.Link == index, nil
	})
}

// addrKey identifies an address within the namespace.
type addrKey struct {
	link   int
	prefix netip.Prefix
	peer   netip.Addr
}

func (a *Addr) key() addrKey { return addrKey{a.Link, a.Prefix, a.Peer} }

func addrSubject(a *Addr, link string) string { return fmt.Sprintf("address %s on link %s", a, link) }

// addrCause puts into words what the errno alone leaves open.
func addrCause(a *Addr, how edit, e *nl.Error) error {
	v6 := a.Prefix.Addr().Is6()
	switch e.Errno {
	case unix.EEXIST:
		return &causeError{text: "the link has this address already", err: e}
	case unix.EADDRNOTAVAIL:
		if how != editDelete {
			return &causeError{text: "the kernel does not take this address for this link: " + e.Error(), err: e}
		}
		return notExist("the link does not have this address", e)
	case unix.ENODEV:
		return notExist("the link is gone", e)
	case unix.EOPNOTSUPP, unix.EAFNOSUPPORT:
		if v6 {
			return &causeError{text: "the kernel has no IPv6 (module ipv6): " + e.Error(), err: e}
		}
	case unix.ENOBUFS:
		if !v6 {
			return &causeError{text: fmt.Sprintf("the link runs no IPv4; is its MTU below %d? %v", minMTU, e), err: e}
		}
	case unix.EACCES:
		if v6 {
			return &causeError{text: "IPv6 is disabled on the link (sysctl disable_ipv6): " + e.Error(), is: errors.ErrUnsupported, err: e}
		}
	case unix.EINVAL:
		if v6 && e.Msg == "" {
			return &causeError{text: fmt.Sprintf("the link runs no IPv6; is its MTU below %d? %v", minMTUIPv6, e), err: e}
		}
	}
	return e
}
