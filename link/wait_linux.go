package link

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// WaitUp waits until the link is up (IFF_UP) and returns it as read then. It sleeps
// until the kernel reports a change, as all waits do, and ends with ctx. A link
// that is deleted meanwhile is os.ErrNotExist.
func (l Link) WaitUp(ctx context.Context) (Link, error) {
	return l.waitLink(ctx, "link.WaitUp", func(now Link) bool { return now.Up })
}

// WaitCarrier waits until the link is up and has a carrier (IFF_RUNNING), and
// returns it as read then. A cable must be in, the other end of a pair must be up,
// or a port of the bridge must have a carrier. A link that is deleted meanwhile is
// os.ErrNotExist.
func (l Link) WaitCarrier(ctx context.Context) (Link, error) {
	return l.waitLink(ctx, "link.WaitCarrier", func(now Link) bool { return now.Up && now.Running })
}

func (l Link) waitLink(ctx context.Context, op string, ready func(Link) bool) (now Link, err error) {
	err = l.wait(ctx, []uint32{unix.RTNLGRP_LINK}, func(ctx context.Context) (bool, error) {
		if now, err = get(ctx, l.ns, "", l.Index); err != nil {
			return false, err
		}
		return ready(now), nil
	})
	if err != nil {
		return Link{}, fail.New(op, l.ns, l.subject(), err)
	}
	return now, nil
}

// WaitForwarding waits until the link forwards as a port of its bridge. That is
// shortly after its carrier, or with the spanning tree protocol twice the bridge's
// forward delay later. A link that is no port of a bridge is os.ErrInvalid. One
// that is deleted meanwhile is os.ErrNotExist.
func (l Link) WaitForwarding(ctx context.Context) error {
	err := l.wait(ctx, []uint32{unix.RTNLGRP_LINK}, func(ctx context.Context) (bool, error) {
		p, err := l.Port(ctx)
		return err == nil && p.State != nil && *p.State == PortForwarding, cause(err)
	})
	return fail.New("link.WaitForwarding", l.ns, l.subject(), err)
}

// WaitGone waits until the link is no longer in its namespace: it was deleted, or
// moved to another one.
func (l Link) WaitGone(ctx context.Context) error {
	err := l.wait(ctx, []uint32{unix.RTNLGRP_LINK}, func(ctx context.Context) (bool, error) {
		_, err := get(ctx, l.ns, "", l.Index)
		if errors.Is(err, os.ErrNotExist) {
			return true, nil
		}
		return false, err
	})
	return fail.New("link.WaitGone", l.ns, l.subject(), err)
}

// WaitAddr waits until the link has the addresses and they are usable. An IPv6
// address is usable when duplicate address detection has finished, which takes a
// carrier and about a second, and the kernel accepts packets for it.
//
// If detection finds the address on another host, the error is os.ErrExist and
// names the address. The kernel then removes an address with a lifetime: an address
// that was there and is gone is os.ErrNotExist, and so is a link that is deleted
// meanwhile.
func (l Link) WaitAddr(ctx context.Context, addrs ...netip.Addr) error {
	for _, a := range addrs {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return fail.New("link.WaitAddr", l.ns, l.subject(), refuse.Input("%v is not an address that a link has; no zone, IPv4 not as IPv6", a))
		}
	}
	groups := []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}
	seen := map[netip.Addr]bool{}
	err := l.wait(ctx, groups, func(ctx context.Context) (bool, error) {
		have, err := l.addrs(ctx)
		if err != nil {
			return false, err
		}
		found := map[netip.Addr]*Addr{}
		for i := range have {
			found[have[i].Prefix.Addr()] = &have[i]
		}
		usable := 0
		for _, want := range addrs {
			a := found[want]
			switch {
			case a == nil && seen[want]:
				return false, refuse.As(os.ErrNotExist, "address %s has gone; was it a duplicate?", want)
			case a == nil:
			case a.DADFailed():
				return false, refuse.As(os.ErrExist, "another host has the address %s: duplicate address detection failed", want)
			default:
				seen[want] = true
				if a.usable() {
					usable++
				}
			}
		}
		return usable == len(addrs), nil
	})
	if err == nil {
		err = l.awaitLocal(ctx, addrs)
	}
	return fail.New("link.WaitAddr", l.ns, l.subject(), err)
}

// awaitLocal waits for those of the addresses that are of IPv6.
func (l Link) awaitLocal(ctx context.Context, addrs []netip.Addr) error {
	conn, err := route(l.ns)
	if err != nil {
		return err
	}
	return awaitLocal(ctx, l.ns, conn, l.Index, slices.DeleteFunc(slices.Clone(addrs), netip.Addr.Is4))
}

// wait calls check now and after each event of the groups that is about the
// link, until it is done. What is lost in an overflow counts as an event: check
// asks the kernel, so that nothing can be missed.
func (l Link) wait(ctx context.Context, groups []uint32, check func(context.Context) (bool, error)) error {
	if err := l.bound(); err != nil {
		return err
	}
	events, err := nsconn.Subscribe(ctx, l.ns, unix.NETLINK_ROUTE, nl.EventConfig{Groups: groups})
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		done, err := check(ctx)
		if done || err != nil {
			return err
		}
		for relevant := false; !relevant; {
			err := events.Receive(ctx, func(_ int, m nl.Message) error {
				relevant = relevant || eventIndex(m) == l.Index
				return nil
			})
			switch {
			case errors.Is(err, nl.ErrOverflow):
				relevant = true
			case err != nil:
				return err
			}
		}
	}
}

// eventIndex returns the index of the link that a message is about: the second
// field of struct ifinfomsg, ifaddrmsg and ndmsg alike.
func eventIndex(m nl.Message) int {
	if len(m.Body) < 8 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(m.Body[4:])))
}

// cause returns what an error of this package wraps.
func cause(err error) error {
	var e *netns.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
