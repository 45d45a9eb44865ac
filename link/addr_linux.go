package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// AddAddr gives the link addresses, all in one send: either all of them, or
// none when one is refused. An address that the link has is os.ErrExist. IPv6
// addresses can be used at once, without duplicate address detection, for the
// reason given at Spec.DAD. [Link.AddAddrs] takes the full form.
func (l Link) AddAddr(ctx context.Context, addrs ...netip.Prefix) error {
	full := make([]Addr, len(addrs))
	for i, p := range addrs {
		full[i] = StaticAddr(p)
	}
	return l.addAddrs(ctx, "link.AddAddr", full, checkAddrs(addrs))
}

// AddAddrs gives the link addresses with all their properties, and otherwise
// does what AddAddr does. An address is given as it stands: with Flags zero, an
// IPv6 address goes through duplicate address detection, and without Broadcast
// an IPv4 address has none; begin with [StaticAddr] where that is not wanted. An
// Addr that [Link.Addrs] read makes the same one again.
func (l Link) AddAddrs(ctx context.Context, addrs ...Addr) error {
	return l.addAddrs(ctx, "link.AddAddrs", addrs, checkFull(addrs))
}

func (l Link) addAddrs(ctx context.Context, op string, addrs []Addr, bad error) error {
	b, err := l.addrBatch(op, addrs, bad)
	if err != nil || len(addrs) == 0 {
		return err
	}
	for i := range addrs {
		b.reqs = append(b.reqs, newAddr(l.Index, &addrs[i], unix.NLM_F_EXCL))
	}
	b.undo = func(i int) (nl.Request, bool) { return delAddr(l.Index, &addrs[i]), true }
	if !slices.ContainsFunc(addrs, func(a Addr) bool { return a.Protocol != 0 }) {
		return b.allOrNone(ctx, nil)
	}
	return b.allOrNone(ctx, func(ctx context.Context) error { return l.checkAddrsTaken(ctx, op, addrs) })
}

// ReplaceAddr gives the link addresses, and those that it has already the
// properties given: lifetimes, metric and protocol, and of IPv6 the peer and
// flags. What the kernel cannot change of an address that is there (its label,
// broadcast address and scope, the flags of an IPv4 address, the length of an
// IPv6 prefix) is errors.ErrUnsupported when it differs; delete such an address
// first. Either all of it is done or nothing.
func (l Link) ReplaceAddr(ctx context.Context, addrs ...Addr) error {
	const op = "link.ReplaceAddr"
	b, err := l.addrBatch(op, addrs, checkFull(addrs))
	if err != nil || len(addrs) == 0 {
		return err
	}
	have, err := readAddrs(ctx, b.conn, l.Index)
	if err != nil {
		return fail.New(op, l.ns, l.subject(), err)
	}
	for i := range addrs {
		b.reqs = append(b.reqs, newAddr(l.Index, &addrs[i], unix.NLM_F_REPLACE))
	}
	b.undo = func(i int) (nl.Request, bool) {
		for j := range have {
			if have[j].same(&addrs[i]) {
				return newAddr(l.Index, &have[j], unix.NLM_F_REPLACE), true
			}
		}
		return delAddr(l.Index, &addrs[i]), true
	}
	return b.allOrNone(ctx, func(ctx context.Context) error { return l.checkAddrsTaken(ctx, op, addrs) })
}

// checkAddrsTaken reads the addresses back: what the kernel does not know or
// cannot change it passes over.
func (l Link) checkAddrsTaken(ctx context.Context, op string, addrs []Addr) error {
	conn, err := route(l.ns)
	var have []Addr
	if err == nil {
		have, err = readAddrs(ctx, conn, l.Index)
	}
	if err != nil {
		return fail.New(op, l.ns, l.subject(), fmt.Errorf("reading the addresses back: %w", err))
	}
	for i := range addrs {
		a := &addrs[i]
		j := slices.IndexFunc(have, func(h Addr) bool { return h.same(a) })
		if j < 0 {
			continue // removed by somebody else since
		}
		if what := a.differs(&have[j], l.Name); what != "" {
			err := &causeError{text: "the kernel did not take " + what, err: errors.ErrUnsupported}
			return fail.New(op, l.ns, addrSubject(a, l.Name), err)
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
	case want.Metric != 0 && want.Metric != got.Metric:
		return "the metric"
	case want.Protocol != got.Protocol:
		return "the protocol (Linux >= 5.18)"
	}
	return ""
}

// DeleteAddr takes addresses from the link, each named with its prefix length,
// pipelined. An address that the link does not have is os.ErrNotExist and does
// not keep the others from going; the error names each that was not removed. An
// IPv4 address with a Peer outside its own subnet goes by [Link.FlushAddrs] only.
//
// Removing the first IPv4 address of a subnet takes the others of that subnet
// with it, unless the sysctl promote_secondaries is set.
func (l Link) DeleteAddr(ctx context.Context, addrs ...netip.Prefix) error {
	full := make([]Addr, len(addrs))
	for i, p := range addrs {
		full[i] = Addr{Prefix: p}
	}
	return l.deleteAddrs(ctx, opDelAddr, full, checkAddrs(addrs))
}

const (
	opDelAddr    = "link.DeleteAddr"
	opFlushAddrs = "link.FlushAddrs"
)

func (l Link) deleteAddrs(ctx context.Context, op string, addrs []Addr, bad error) error {
	b, err := l.addrBatch(op, addrs, bad)
	if err != nil || len(addrs) == 0 {
		return err
	}
	b.goneIsFine = op == opFlushAddrs
	for i := range addrs {
		b.reqs = append(b.reqs, delAddr(l.Index, &addrs[i]))
	}
	return b.each(ctx)
}

// FlushAddrs takes from the link every address for which match returns true,
// all of them if match is nil, the kernel's own link-local ones included. An
// address that goes along with another, as DeleteAddr tells, is no error.
func (l Link) FlushAddrs(ctx context.Context, match func(Addr) bool) error {
	const op = opFlushAddrs
	addrs, err := l.addrs(ctx)
	if err != nil {
		return fail.New(op, l.ns, l.subject(), err)
	}
	if match != nil {
		addrs = slices.DeleteFunc(addrs, func(a Addr) bool { return !match(a) })
	}
	// The last first: secondary addresses before the one that they hang on.
	slices.Reverse(addrs)
	return l.deleteAddrs(ctx, op, addrs, nil)
}

// Addrs reads the link's addresses, IPv4 first, in the kernel's order. A link
// that is gone is os.ErrNotExist.
func (l Link) Addrs(ctx context.Context) ([]Addr, error) {
	addrs, err := l.addrs(ctx)
	if err != nil {
		return nil, fail.New("link.Addrs", l.ns, l.subject(), err)
	}
	return addrs, nil
}

// ListAddrs reads the addresses of all links of the namespace, IPv4 first, by
// link. The list is complete: when addresses change while it is read, in a way
// that can make it miss one, it is read again, up to 50 times, and is
// [ErrInterrupted] then.
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
	all, twice, err := listWhole(ctx, conn, getAddrs(index), func(m nl.Message, a *Addr) (bool, error) {
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
	if err != nil {
		return nil, err
	}
	if twice {
		type key struct {
			link   int
			prefix netip.Prefix
			peer   netip.Addr
		}
		all = once(all, func(a *Addr) key { return key{a.Link, a.Prefix, a.Peer} })
	}
	return all, nil
}

// addrBatch checks the link and the addresses before anything is sent.
func (l Link) addrBatch(op string, addrs []Addr, bad error) (*batch, error) {
	err := l.bound()
	if err == nil {
		err = bad
	}
	var conn *nl.Conn
	if err == nil {
		conn, err = route(l.ns)
	}
	if err != nil {
		return nil, fail.New(op, l.ns, l.subject(), err)
	}
	return &batch{
		op: op, ns: l.ns, conn: conn, all: l.subject(), reqs: make([]nl.Request, 0, len(addrs)),
		subject: func(i int) string { return addrSubject(&addrs[i], l.Name) },
		cause: func(i int, e *nl.Error) error {
			return addrCause(addrs[i].Prefix, op != opDelAddr && op != opFlushAddrs, e)
		},
	}, nil
}

func addrSubject(a fmt.Stringer, name string) string {
	return fmt.Sprintf("address %s on link %s", a, name)
}

// addrCause puts into words what the errno alone leaves open, where adding p
// failed, or else removing it.
func addrCause(p netip.Prefix, adding bool, e *nl.Error) error {
	v6 := p.Addr().Is6()
	switch e.Errno {
	case unix.EEXIST:
		return &causeError{text: "the link has this address already", err: e}
	case unix.EADDRNOTAVAIL:
		if adding {
			return &causeError{text: "the kernel does not take this address for this link: " + e.Error(), err: e}
		}
		return notExist("the link does not have this address", e)
	case unix.ENODEV:
		return notExist("the link is gone", e)
	case unix.EOPNOTSUPP, unix.EAFNOSUPPORT:
		if v6 {
			return &causeError{text: "the kernel has no IPv6 (module ipv6): " + e.Error(), err: e}
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

// addrRequests are those of the addresses of a link that is being made.
func addrRequests(typ uint16, index int, addrs []netip.Prefix, dad bool) []nl.Request {
	reqs := make([]nl.Request, len(addrs))
	for i, p := range addrs {
		reqs[i] = addrRequest(typ, index, p, dad)
	}
	return reqs
}
