package forwarding

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Writes reports whether there is a setting to write.
func (p *Plan) Writes() bool {
	return slices.ContainsFunc(p.Changes, func(c Change) bool { return c.From != c.To })
}

// Apply writes the values after the changes, those of IPv6 only where IPv4 has taken
// its own: a setting of IPv6 may concern every link. Links that are gone are skipped.
func Apply(ctx context.Context, ns *netns.NS, changes []Change) error {
	four, six, err := prepare(ctx, ns, slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return c.From == c.To }))
	if err == nil {
		err = write4(ctx, ns, four)
	}
	if err == nil {
		err = write6(ctx, ns, six)
	}
	return err
}

// Revert writes the values before the changes, in the opposite order. Links that are
// gone are skipped.
func Revert(ctx context.Context, ns *netns.NS, changes []Change) error {
	var back []Change
	for _, c := range slices.Backward(changes) {
		if c.To = c.From; c.From != 0 {
			back = append(back, c)
		}
	}
	four, six, err := prepare(ctx, ns, back)
	if err != nil {
		return err
	}
	return errors.Join(write4(ctx, ns, four), write6(ctx, ns, six))
}

// Restore is Revert of changes made some time ago. Where the machine has been made a
// router by the global switch of IPv4 since, its links go on forwarding, but for those
// that were set apart.
func Restore(ctx context.Context, ns *netns.NS, changes []Change) error {
	bySwitch := func(c Change) bool { return c.Setting == IPv4Forwarding && !c.Apart }
	if slices.ContainsFunc(changes, bySwitch) {
		router, err := switchedOn(ctx, ns)
		if err != nil {
			return err
		}
		if router {
			changes = slices.DeleteFunc(slices.Clone(changes), bySwitch)
		}
	}
	return Revert(ctx, ns, changes)
}

// prepare returns the changes of settings of IPv4 and those of IPv6, in their order, with
// the indexes of their links.
func prepare(ctx context.Context, ns *netns.NS, changes []Change) (four, six []Change, err error) {
	var links []rtnl.Link
	for _, c := range changes {
		if c.Index == 0 && c.Link != All {
			if links == nil {
				if links, err = rtnl.Links(ctx, ns); err != nil {
					return nil, nil, err
				}
			}
			at := slices.IndexFunc(links, func(l rtnl.Link) bool { return l.Name == c.Link })
			if at < 0 {
				continue
			}
			c.Index = links[at].Index
		}
		if c.Setting.isIPv4() {
			four = append(four, c)
		} else {
			six = append(six, c)
		}
	}
	return four, six, nil
}

// write4 writes the values To of changes in one exchange.
func write4(ctx context.Context, ns *netns.NS, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	c, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	reqs := make([]nl.Request, len(changes))
	for i, change := range changes {
		reqs[i] = request(change)
	}
	err = c.ExecAll(ctx, reqs, nl.IgnoreNotExist, nil)
	if many, ok := errors.AsType[*nl.ExecError](err); ok && len(many.Failed) > 0 {
		change := changes[many.Failed[0].Index]
		return fmt.Errorf("setting net.ipv4.conf.%s.%v to %c: %w", change.Link, change.Setting, change.To, many.Failed[0].Err)
	}
	return err
}

// request is the message for one IPv4 setting of the link of an index.
func request(c Change) nl.Request {
	number := uint16(rtnl.Forwarding)
	if c.Setting == IPv4RouteLocalnet {
		number = rtnl.RouteLocalnet
	}
	b := make([]byte, unix.SizeofIfInfomsg, 64)
	binary.NativeEndian.PutUint32(b[4:], uint32(c.Index))
	b, spec := nl.Begin(b, unix.IFLA_AF_SPEC)
	b, inet := nl.Begin(b, unix.AF_INET)
	b, conf := nl.Begin(b, unix.IFLA_INET_CONF)
	b = nl.AppendU32(b, number, uint32(c.To-'0'))
	nl.End(b, conf)
	nl.End(b, inet)
	nl.End(b, spec)
	return nl.Request{Type: unix.RTM_NEWLINK, Body: b}
}

// write6 writes the settings that do not have their value already: a host that needs no
// write may have a read-only /proc/sys.
func write6(ctx context.Context, ns *netns.NS, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	_, err := netns.Do(ctx, ns, func(context.Context) (any, error) {
		for _, c := range changes {
			if is, err := read6(c.Link, c.Setting); err == nil && is == string(c.To) {
				continue
			}
			err := write(c)
			if err != nil && !(c.Link != All && errors.Is(err, os.ErrNotExist)) { // a missing file is a link that is gone
				return nil, fmt.Errorf("setting net.ipv6.conf.%s.%v to %c: %w", c.Link, c.Setting, c.To, err)
			}
		}
		return nil, nil
	})
	return err
}

// write writes an IPv6 setting. Its file is of the link that had the name when it was
// opened, and is dead as soon as that link has another name or is gone. So a link whose
// index is right then is the one that is written.
func write(c Change) error {
	f, err := os.OpenFile(conf6+c.Link+"/"+c.Setting.String(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if c.Link != All {
		err = isLink(c.Link, c.Index)
	}
	if err == nil {
		_, err = f.Write([]byte{c.To})
	}
	return errors.Join(err, f.Close())
}

// isLink checks that the link of a name has the index, in the calling thread's namespace.
func isLink(name string, index int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	}
	if err == unix.ENODEV || err == nil && int(req.Uint32()) != index {
		err = os.ErrNotExist
	}
	return err
}
