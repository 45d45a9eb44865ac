package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

const opAdd = "link.AddAddr"

// AddAddr gives the link addresses, all in one send: either all of them, or
// none when one is refused. An address that the link has is os.ErrExist. IPv6
// addresses can be used at once, without duplicate address detection, for the
// reason given at Spec.DAD.
func (l Link) AddAddr(ctx context.Context, addrs ...netip.Prefix) error {
	const op = opAdd
	conn, err := l.forAddrs(addrs)
	if err != nil {
		return fail.New(op, l.ns, l.subject(), err)
	}
	if len(addrs) == 0 {
		return nil
	}
	var left error
	err = change(ctx, func(ctx context.Context) error {
		err := conn.Exec(ctx, addrRequests(unix.RTM_NEWADDR, l.Index, addrs, false), nil)
		var many *nl.ExecError
		if errors.As(err, &many) {
			left = undoAddrs(ctx, conn, l.Index, addrs, many)
		}
		return err
	})
	err = l.failAddrs(op, addrs, err)
	if left != nil {
		return errors.Join(err, fail.New(op, l.ns, l.subject(), left))
	}
	return err
}

// DeleteAddr takes addresses from the link, each named with its prefix length,
// pipelined. An address that the link does not have is os.ErrNotExist and does
// not keep the others from going; the error names each that was not removed.
//
// Removing the first IPv4 address of a subnet takes the others of that subnet
// with it, unless the sysctl promote_secondaries is set.
func (l Link) DeleteAddr(ctx context.Context, addrs ...netip.Prefix) error {
	const op = "link.DeleteAddr"
	conn, err := l.forAddrs(addrs)
	if err != nil {
		return fail.New(op, l.ns, l.subject(), err)
	}
	if len(addrs) == 0 {
		return nil
	}
	var failed []error
	err = change(ctx, func(ctx context.Context) error {
		for rest := addrs; ; {
			err := conn.Exec(ctx, addrRequests(unix.RTM_DELADDR, l.Index, rest, false), nil)
			var many *nl.ExecError
			if !errors.As(err, &many) {
				return err
			}
			// Exec stops after the send in which one failed.
			failed = append(failed, l.failAddrs(op, rest, err))
			if rest = rest[many.Sent:]; len(rest) == 0 {
				return nil
			}
		}
	})
	if len(failed) > 0 {
		return errors.Join(append(failed, fail.New(op, l.ns, l.subject(), err))...)
	}
	return fail.New(op, l.ns, l.subject(), err)
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

func (l Link) addrs(ctx context.Context) ([]Addr, error) {
	if err := l.bound(); err != nil {
		return nil, err
	}
	conn, err := route(l.ns)
	if err != nil {
		return nil, err
	}
	var addrs []Addr
	err = conn.Dump(ctx, getAddrs(l.Index), func() { addrs = addrs[:0] }, func(m nl.Message) error {
		if m.Type != unix.RTM_NEWADDR || len(m.Body) == 0 {
			return nil
		}
		if f := m.Body[0]; f != unix.AF_INET && f != unix.AF_INET6 {
			return nil
		}
		a, index, err := decodeAddr(m.Body)
		if err == nil && index == l.Index {
			addrs = append(addrs, a)
		}
		return err
	})
	return addrs, err
}

// forAddrs checks the link and the addresses before anything is sent.
func (l Link) forAddrs(addrs []netip.Prefix) (*nl.Conn, error) {
	if err := l.bound(); err != nil {
		return nil, err
	}
	if err := checkAddrs(addrs); err != nil {
		return nil, err
	}
	return route(l.ns)
}

// failAddrs gives each refused address an error that names it.
func (l Link) failAddrs(op string, addrs []netip.Prefix, err error) error {
	var many *nl.ExecError
	if !errors.As(err, &many) {
		return fail.New(op, l.ns, l.subject(), err)
	}
	errs := make([]error, 0, len(many.Failed))
	for _, f := range many.Failed {
		errs = append(errs, fail.New(op, l.ns, addrSubject(addrs[f.Index], l.Name), addrCause(addrs[f.Index], op == opAdd, f.Err)))
	}
	if many.Cause != nil {
		errs = append(errs, fail.New(op, l.ns, l.subject(), many))
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

func addrSubject(p netip.Prefix, name string) string {
	return fmt.Sprintf("address %s on link %s", p, name)
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

func addrRequests(typ uint16, index int, addrs []netip.Prefix, dad bool) []nl.Request {
	reqs := make([]nl.Request, len(addrs))
	for i, p := range addrs {
		reqs[i] = addrRequest(typ, index, p, dad)
	}
	return reqs
}

// undoAddrs removes again what was added around the refused ones.
func undoAddrs(ctx context.Context, conn *nl.Conn, index int, addrs []netip.Prefix, many *nl.ExecError) error {
	failed := make(map[int]bool, len(many.Failed))
	for _, f := range many.Failed {
		failed[f.Index] = true
	}
	var added []netip.Prefix
	// The last added goes first, so that no address takes secondary ones
	// with it that were there before.
	for i := min(many.Sent, len(addrs)) - 1; i >= 0; i-- {
		if !failed[i] {
			added = append(added, addrs[i])
		}
	}
	err := conn.Exec(ctx, addrRequests(unix.RTM_DELADDR, index, added, false), nil)
	if _, e, ok := refused(err); ok && (e.Errno == unix.ENODEV || e.Errno == unix.EADDRNOTAVAIL) {
		return nil // gone already
	}
	if err != nil {
		return fmt.Errorf("undoing the other addresses: %w", err)
	}
	return nil
}
