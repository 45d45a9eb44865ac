package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/internal/nl"
	_ "github.com/boxwire/boxwire/internal/nldebug" // BOXWIRE_DEBUG=netlink
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Get returns the link with the name, which may be an alternative name. A missing
// link is os.ErrNotExist.
func Get(ctx context.Context, ns *netns.NS, name string) (Link, error) {
	l, err := get(ctx, ns, name, 0)
	if err != nil {
		return Link{}, fail.New("link.Get", ns, subject(name), err)
	}
	return l, nil
}

// ByIndex returns the link with the index. A missing link is os.ErrNotExist.
func ByIndex(ctx context.Context, ns *netns.NS, index int) (Link, error) {
	l, err := get(ctx, ns, "", index)
	if err != nil {
		return Link{}, fail.New("link.ByIndex", ns, subjectIndex(index), err)
	}
	return l, nil
}

func get(ctx context.Context, ns *netns.NS, name string, index int) (Link, error) {
	if index == 0 {
		if err := linkname.CheckAlt(name); err != nil {
			return Link{}, err
		}
	}
	if index < 0 || index > 1<<31-1 {
		return Link{}, refuse.Input("index %d is out of range (1 to 2147483647)", index)
	}
	conn, err := route(ns)
	if err != nil {
		return Link{}, err
	}
	return read(ctx, ns, conn, name, index)
}

// read asks conn, a connection in ns, for one link.
func read(ctx context.Context, ns *netns.NS, conn *nl.Conn, name string, index int) (Link, error) {
	var l Link
	err := conn.Call(ctx, getLink(name, index), func(m nl.Message) error {
		return decodeLink(&l, m.Body)
	})
	if err != nil {
		return Link{}, err
	}
	l.ns = ns
	return l, nil
}

// ListByAlias returns the links with the alias (Spec.Alias), ordered by index.
// Several links may have the same alias. If none has it, the error is
// os.ErrNotExist. The kernel does not filter by alias, so all links are read.
func ListByAlias(ctx context.Context, ns *netns.NS, alias string) ([]Link, error) {
	links, err := listByAttr(ctx, ns, unix.IFLA_IFALIAS, []byte(alias), "alias")
	return links, fail.New("link.ListByAlias", ns, fmt.Sprintf("link with alias %q", alias), err)
}

// ListByMAC returns the links with the hardware address, ordered by index. A VLAN
// has that of its parent, so there may be several. If none has it, the error is
// os.ErrNotExist. The kernel does not filter by address, so all links are read.
func ListByMAC(ctx context.Context, ns *netns.NS, mac net.HardwareAddr) ([]Link, error) {
	links, err := listByAttr(ctx, ns, unix.IFLA_ADDRESS, mac, "hardware address")
	return links, fail.New("link.ListByMAC", ns, fmt.Sprintf("link with hardware address %s", mac), err)
}

// listByAttr reads the links that have an attribute with the value.
func listByAttr(ctx context.Context, ns *netns.NS, typ uint16, value []byte, what string) ([]Link, error) {
	if len(value) == 0 {
		return nil, refuse.Input("the %s is empty", what)
	}
	value = bytes.TrimSuffix(value, []byte{0})
	links, err := list(ctx, ns, Filter{}, func(b []byte) bool { return bytes.Equal(linkAttr(b, typ), value) })
	if err == nil && len(links) == 0 {
		err = notExist("no link has it", unix.ENODEV)
	}
	return links, err
}

// linkAttr returns an attribute of a message about a link, without the NUL of a text.
func linkAttr(body []byte, typ uint16) []byte {
	for w := nl.Walk(body[unix.SizeofIfInfomsg:]); w.Next(); {
		if w.Type() == typ {
			return bytes.TrimSuffix(w.Data(), []byte{0})
		}
	}
	return nil
}

// List returns the links of the namespace that f selects, ordered by index. The
// list is that of one moment: if links come or go while it is read, it is read
// again, and the error after 50 attempts is [ErrInterrupted]. A Master of f that is
// missing is os.ErrNotExist.
func List(ctx context.Context, ns *netns.NS, f Filter) ([]Link, error) {
	links, err := list(ctx, ns, f, nil)
	if err != nil {
		return nil, fail.New("link.List", ns, "links", err)
	}
	return links, nil
}

// list reads the links that f and keep, which may be nil, choose.
func list(ctx context.Context, ns *netns.NS, f Filter, keep func(body []byte) bool) ([]Link, error) {
	if err := f.Master.resolve(ctx, "master", ns); err != nil {
		return nil, err
	}
	conn, err := route(ns)
	if err != nil {
		return nil, err
	}
	var store linkStore
	links, err := nl.List(ctx, conn, getLinks(f), nil, func(m nl.Message, l *Link) (bool, error) {
		if m.Type != unix.RTM_NEWLINK {
			return false, nil
		}
		if len(m.Body) < unix.SizeofIfInfomsg {
			return false, errShort
		}
		if keep != nil && !keep(m.Body) || f.AliasPrefix != "" && !bytes.HasPrefix(linkAttr(m.Body, unix.IFLA_IFALIAS), []byte(f.AliasPrefix)) {
			return false, nil
		}
		err := store.decode(l, m.Body)
		l.ns = ns
		return f.match(l), err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(links, func(a, b Link) int { return a.Index - b.Index })
	return links, nil
}

// route returns the namespace's rtnetlink connection.
func route(ns *netns.NS) (*nl.Conn, error) {
	if ns == nil {
		return nil, refuse.Input("the namespace is nil")
	}
	return nsconn.Shared(ns, unix.NETLINK_ROUTE)
}

// refused returns the first request that the kernel refused and why; ok is
// false for errors of another sort.
func refused(err error) (index int, e *nl.Error, ok bool) {
	if many, ok := errors.AsType[*nl.ExecError](err); ok && len(many.Failed) > 0 {
		return many.Failed[0].Index, many.Failed[0].Err, true
	}
	e, ok = errors.AsType[*nl.Error](err)
	return 0, e, ok
}

// notExist says in words that something is not there.
func notExist(text string, err error) error {
	return &causeError{text: text, is: os.ErrNotExist, err: err}
}
