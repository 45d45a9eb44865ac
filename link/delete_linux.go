package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Delete removes the link, and with it the other end of a pair and the ifb link of
// [Link.SetRate]. A link that is gone is os.ErrNotExist. A link of hardware or of
// the kernel, such as lo, cannot be deleted (EOPNOTSUPP).
func (l Link) Delete(ctx context.Context) error {
	const op = "link.Delete"
	err := l.bound()
	var ifb Link
	if err == nil {
		if ifb, err = l.findIFB(ctx); err == nil && ifb.Index != 0 {
			return deleteGroup(ctx, op, l.ns, []Link{l}) // both or none
		}
	}
	if err == nil {
		err = l.remove(ctx)
	}
	if _, e, ok := refused(err); ok && e.Errno == unix.EOPNOTSUPP {
		err = &causeError{text: notDeletable + ": " + e.Error(), err: e}
	}
	return fail.New(op, l.ns, l.subject(), err)
}

// remove deletes the link alone.
func (l Link) remove(ctx context.Context) error {
	ctx, err := changeContext(ctx)
	if err != nil {
		return err
	}
	return apart(l.ns, func(conn *nl.Conn) error { return conn.Call(ctx, delLink(l.Index), nil) })
}

// apart calls remove with a connection of its own. The kernel answers a deletion only after a grace
// period, many milliseconds after the link is gone. On the connection that the handle's callers
// share, they would wait for that, and deletions would wait for each other. The shared one is for
// a process that has no descriptor left.
func apart(ns *netns.NS, remove func(*nl.Conn) error) error {
	conn, err := nsconn.Own(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = remove(conn)
	if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) { // of the socket: nothing was sent
		return err
	}
	if conn, err = route(ns); err != nil {
		return err
	}
	return remove(conn)
}

const notDeletable = "the link belongs to hardware or to the kernel and cannot be deleted"

// DeleteAll removes links, and with each the other end of a pair and the ifb link
// of [Link.SetRate]. The links of one namespace are removed together. The kernel
// waits for a grace period in each call that deletes, so 300 links one by one take
// over 30 times as long as 300 together.
//
// A link that is gone is os.ErrNotExist, and the error names it; the others are
// removed all the same. Otherwise all links of a namespace are removed or none: a
// link that cannot be deleted, such as lo, is os.ErrInvalid.
//
// DeleteAll puts the links into a group that no other link is in (Spec.Group) and
// deletes that group. If that fails, they get their groups back.
func DeleteAll(ctx context.Context, links ...Link) error {
	const op = "link.DeleteAll"
	for _, l := range links {
		if err := l.bound(); err != nil {
			return fail.New(op, l.ns, l.subject(), err)
		}
	}
	var errs []error
	for len(links) > 0 {
		ns := links[0].ns
		var here, rest []Link
		for _, l := range links {
			if l.ns.Equal(ns) {
				here = append(here, l)
			} else {
				rest = append(rest, l)
			}
		}
		errs = append(errs, deleteGroup(ctx, op, ns, here))
		links = rest
	}
	return errors.Join(errs...)
}

// deleteGroup removes links of one namespace.
func deleteGroup(ctx context.Context, op string, ns *netns.NS, links []Link) error {
	subject := fmt.Sprintf("%d links", len(links))
	if len(links) == 1 {
		subject = links[0].subject()
	}
	all, err := list(ctx, ns, Filter{}, nil)
	if err != nil {
		return fail.New(op, ns, subject, err)
	}
	there := make(map[int]*Link, len(all))
	ifbs := make(map[string]*Link)
	taken := make(map[uint32]bool)
	for i := range all {
		there[all[i].Index] = &all[i]
		taken[all[i].Group] = true
		if all[i].Kind == "ifb" {
			ifbs[all[i].Name] = &all[i]
		}
	}
	group := rand.Uint32N(1<<31-1) + 1
	for taken[group] {
		group++
	}

	var errs []error
	var present []Link
	for _, l := range links {
		switch now, ok := there[l.Index]; {
		case !ok:
			errs = append(errs, fail.New(op, ns, l.subject(), notExist("the link is gone already", unix.ENODEV)))
		case now == nil: // a second time
		case now.Kind == "":
			return fail.New(op, ns, now.subject(), refuse.Input(notDeletable))
		default:
			present = append(present, *now)
			there[l.Index] = nil
			if ifb := ifbs[ifbName(l.Index)]; ifb != nil && there[ifb.Index] != nil {
				present = append(present, *ifb)
				there[ifb.Index] = nil
			}
		}
	}
	if ctx, err = changeContext(ctx); err == nil {
		err = apart(ns, func(conn *nl.Conn) error { return deleteLinks(ctx, conn, present, group) })
	}
	return errors.Join(append(errs, fail.New(op, ns, subject, err))...)
}

// deleteLinks puts the links into the group and deletes the group.
func deleteLinks(ctx context.Context, conn *nl.Conn, links []Link, group uint32) error {
	if len(links) == 0 {
		return nil
	}
	if len(links) == 1 {
		return conn.Call(ctx, delLink(links[0].Index), nil)
	}
	set, err := setGroups(ctx, conn, links, func(Link) uint32 { return group })
	if err == nil {
		b := nl.AppendU32(appendIfInfo(nil, 0, 0, 0), unix.IFLA_GROUP, group)
		err = conn.Call(ctx, nl.Request{Type: unix.RTM_DELLINK, Body: b, Names: linkNames}, nil)
		if errors.Is(err, os.ErrNotExist) {
			return nil // all went in between
		}
	}
	if err == nil {
		return nil
	}
	if _, uerr := setGroups(ctx, conn, links[:set], func(l Link) uint32 { return l.Group }); uerr != nil {
		err = errors.Join(err, fmt.Errorf("giving the links their groups back: %w", uerr))
	}
	return err
}

// setGroups puts each link into a group, and returns how many requests were sent.
// It ignores links that are gone.
func setGroups(ctx context.Context, conn *nl.Conn, links []Link, group func(Link) uint32) (n int, err error) {
	reqs := make([]nl.Request, len(links))
	for i, l := range links {
		b := nl.AppendU32(appendIfInfo(make([]byte, 0, 24), l.Index, 0, 0), unix.IFLA_GROUP, group(l))
		reqs[i] = nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: linkNames}
	}
	err = conn.ExecAll(ctx, reqs, nl.IgnoreNotExist, nil)
	if many, ok := errors.AsType[*nl.ExecError](err); ok {
		return many.Sent, err
	}
	return len(links), err
}
