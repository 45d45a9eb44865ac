package topology

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// maxRoutes is how many routes of a namespace a snapshot has. Of more it has the default routes.
const maxRoutes = 200

// readers is how many namespaces are read at the same time.
const readers = 8

// Read reads the network namespaces of the machine, as far as the caller may. A namespace that ends
// meanwhile is left out. What may not be read is named in Notes.
//
// It reads all of /proc, and so finds what is in the program's own pid namespace. It holds each
// namespace open while it reads.
func Read(ctx context.Context, opts Options) (*Snapshot, error) {
	own, err := netns.Current()
	if err != nil {
		return nil, err
	}
	defer own.Close()
	s := new(Snapshot)
	infos, err := netns.ListAll(ctx)
	switch {
	case errors.Is(err, os.ErrPermission):
		s.Notes = append(s.Notes, "what processes of other users hold is not listed: "+err.Error())
	case err != nil:
		return nil, err
	}
	var spaces []*space
	defer func() {
		for _, x := range spaces {
			x.ns.Close()
		}
	}()
	for _, info := range infos {
		if opts.Some != nil && !opts.Some(info) {
			continue
		}
		n := namespaceOf(info)
		n.Own = info.ID == own.ID()
		ns, err := open(ctx, info)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue // it has ended
		case err != nil:
			n.Notes = append(n.Notes, "it may not be looked into: "+err.Error())
		default:
			spaces = append(spaces, &space{ns: ns, is: n})
		}
		s.Namespaces = append(s.Namespaces, n)
	}
	readAll(ctx, spaces)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pair(ctx, spaces)
	s.sort()
	return s, nil
}

// space is a namespace that is read.
type space struct {
	ns    *netns.NS
	is    *Namespace
	links []link.Link
}

// namespaceOf returns what the list of namespaces says of one.
func namespaceOf(info netns.Info) *Namespace {
	n := &Namespace{Inode: info.ID.Ino, Names: slices.Clone(info.Names)}
	for _, h := range info.Holders {
		if h.Kind == netns.HolderProcess {
			n.Processes = append(n.Processes, Process{Pid: h.Pid, Comm: h.Comm})
		}
	}
	return n
}

// open opens a namespace by one of its holders that is it still.
func open(ctx context.Context, info netns.Info) (*netns.NS, error) {
	last := error(os.ErrNotExist)
	for _, h := range info.Holders {
		path := ""
		switch {
		case h.Kind == netns.HolderProcess:
			path = fmt.Sprintf("/proc/%d/ns/net", h.Pid)
		case h.Tid != 0:
			path = fmt.Sprintf("/proc/%d/task/%d/ns/net", h.Pid, h.Tid)
		case h.Path != "":
			path = fmt.Sprintf("/proc/%d/root%s", h.Pid, h.Path)
		default:
			path = fmt.Sprintf("/proc/%d/fd/%d", h.Pid, h.Fd)
		}
		ns, err := netns.OpenPath(ctx, path)
		if err == nil && ns.ID() == info.ID {
			return ns, nil
		}
		if err == nil {
			ns.Close()
		} else if !errors.Is(err, os.ErrNotExist) {
			last = err
		}
	}
	return nil, last
}

// readAll reads what is in the namespaces, several at a time.
func readAll(ctx context.Context, spaces []*space) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, readers)
	for _, x := range spaces {
		slots <- struct{}{}
		wg.Go(func() {
			x.read(ctx)
			<-slots
		})
	}
	wg.Wait()
}

// read reads what is in a namespace. What it cannot read it notes.
func (x *space) read(ctx context.Context) {
	note := func(what string, err error) {
		if err != nil {
			x.is.Notes = append(x.is.Notes, "its "+what+" cannot be read: "+err.Error())
		}
	}
	note("links", x.readLinks(ctx))
	note("routes", x.readRoutes(ctx))
	listeners, err := listening(ctx, x.ns)
	x.is.Listeners = listeners
	note("sockets", err)
}

func (x *space) readLinks(ctx context.Context) (err error) {
	if x.links, err = link.List(ctx, x.ns, link.Filter{}); err != nil {
		return err
	}
	names := make(map[int]string, len(x.links))
	for _, l := range x.links {
		names[l.Index] = l.Name
	}
	byIndex := make(map[int]*Link, len(x.links))
	for _, l := range x.links {
		is := &Link{Index: l.Index, Name: l.Name, Kind: l.Kind, Up: l.Up, Running: l.Running, MTU: l.MTU, Master: names[l.Master]}
		if len(l.MAC) > 0 && l.Index != 1 {
			is.MAC = l.MAC.String()
		}
		byIndex[l.Index] = is
		x.is.Links = append(x.is.Links, is)
	}
	addrs, err := rtnl.Addrs(ctx, x.ns, unix.AF_UNSPEC)
	for _, a := range addrs {
		if l := byIndex[a.Link]; l != nil && a.Local.IsValid() {
			l.Addrs = append(l.Addrs, a.Local)
		}
	}
	return err
}

func (x *space) readRoutes(ctx context.Context) error {
	names := make(map[int]string, len(x.links))
	for _, l := range x.links {
		names[l.Index] = l.Name
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		routes, err := rtnl.Routes(ctx, x.ns, family)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.Table != unix.RT_TABLE_MAIN || r.Type != unix.RTN_UNICAST || !r.Dst.IsValid() || r.Dst.Addr().IsMulticast() {
				continue
			}
			x.is.Routes = append(x.is.Routes, Route{Dst: r.Dst, Via: r.Gateway, Dev: names[r.Link()]})
		}
	}
	if n := len(x.is.Routes); n > maxRoutes {
		x.is.Routes = slices.DeleteFunc(x.is.Routes, func(r Route) bool { return !r.IsDefault() })
		x.is.More = n - len(x.is.Routes)
	}
	return nil
}
