package topology

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"

	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// maxRoutes is how many routes of a namespace a snapshot has. Of more it has the default routes.
const maxRoutes = 200

// A part is what is read of a namespace at one time.
type part uint8

const (
	partLinks part = 1 << iota // with their addresses
	partRoutes
	partListeners
	partFirewall

	partAll = partLinks | partRoutes | partListeners | partFirewall
)

// A space is a namespace that is read, and what was read of it.
type space struct {
	info    netns.Info
	who     *Namespace // what the list of namespaces says of it
	dirty   part       // to be read
	changed bool       // since the last snapshot
	ended   bool

	closed string // why it may not be looked into
	userns uint64
	links  []rtnl.Link
	parts  [4]contents // by the number of the part's bit

	ids  map[int]uint64  // inode numbers of namespaces by the ids that it knows them by
	none map[uint64]bool // namespaces that had no id here when the links were read
}

// contents are what was read as one part.
type contents struct {
	is   Namespace // with the fields of the part
	note string
}

// refresh reads the parts that are dirty.
func (x *space) refresh(ctx context.Context, r *reader) {
	ns, err := x.open(ctx)
	if errors.Is(err, os.ErrNotExist) {
		x.ended = true
		return
	}
	if err != nil {
		x.close(err)
		return
	}
	defer ns.Close()
	if x.closed != "" {
		x.changed, x.closed, x.dirty = true, "", partAll
	}
	failed := part(0)
	if x.userns == 0 {
		if o, err := ns.Owner(); err == nil {
			x.userns = o.ID.Ino
		}
	}
	for i, p := range []struct {
		name string
		read func(context.Context, *netns.NS, *reader, *Namespace) error
	}{{"links", x.readLinks}, {"routes", x.readRoutes}, {"sockets", x.readListeners}, {"firewall", x.readFirewall}} {
		if x.dirty&(1<<i) == 0 {
			continue
		}
		var c contents
		err := p.read(ctx, ns, r, &c.is)
		if i == 0 && errors.Is(err, os.ErrPermission) { // and so it is with the others
			x.close(err)
			return
		}
		if err != nil && !errors.Is(err, os.ErrPermission) {
			failed |= 1 << i // the next refresh may succeed
		}
		if err != nil {
			c.note = "its " + p.name + " cannot be read: " + err.Error()
		}
		if !reflect.DeepEqual(c, x.parts[i]) {
			x.parts[i], x.changed = c, true
		}
	}
	x.dirty = failed
}

// close notes why a namespace may not be looked into. What is forbidden is not tried again at once.
func (x *space) close(err error) {
	x.changed = x.changed || x.closed != err.Error()
	x.closed = err.Error()
	if errors.Is(err, os.ErrPermission) {
		x.dirty = 0
	}
}

// open opens a namespace by one of its holders that is it still. One that has ended is os.ErrNotExist.
func (x *space) open(ctx context.Context) (*netns.NS, error) {
	n := Namespace{Inode: x.info.ID.Ino, paths: paths(x.info)}
	return n.Open(ctx)
}

// paths are the files by which a namespace may be opened.
func paths(info netns.Info) (all []string) {
	for _, h := range info.Holders {
		switch {
		case h.Kind == netns.HolderProcess:
			all = append(all, fmt.Sprintf("/proc/%d/ns/net", h.Pid))
		case h.Tid != 0:
			all = append(all, fmt.Sprintf("/proc/%d/task/%d/ns/net", h.Pid, h.Tid))
		case h.Path != "":
			all = append(all, fmt.Sprintf("/proc/%d/root%s", h.Pid, h.Path))
		default:
			all = append(all, fmt.Sprintf("/proc/%d/fd/%d", h.Pid, h.Fd))
		}
	}
	return all
}

// namespace returns what was read, as a copy whose links may be paired.
func (x *space) namespace() *Namespace {
	n := *x.who
	const enough = 8 // of which some may end
	n.paths = paths(x.info)
	n.paths = slices.Clone(n.paths[:min(enough, len(n.paths))])
	n.UserNS = x.userns
	n.Names, n.Processes, n.Containers = slices.Clone(n.Names), slices.Clone(n.Processes), slices.Clone(n.Containers)
	n.unread = x.closed != "" || x.parts[2].note != ""
	if x.closed != "" {
		n.Notes = []string{"it may not be looked into: " + x.closed}
		return &n
	}
	for _, l := range x.parts[0].is.Links {
		c := *l
		c.Addrs, c.VLANs = slices.Clone(l.Addrs), slices.Clone(l.VLANs)
		n.Links = append(n.Links, &c)
	}
	n.Routes, n.More = slices.Clone(x.parts[1].is.Routes), x.parts[1].is.More
	n.Listeners = slices.Clone(x.parts[2].is.Listeners)
	n.Networks, n.Ports = slices.Clone(x.parts[3].is.Networks), slices.Clone(x.parts[3].is.Ports)
	for _, p := range x.parts {
		n.Notes = append(n.Notes, p.is.Notes...)
		if p.note != "" {
			n.Notes = append(n.Notes, p.note)
		}
	}
	return &n
}

func (x *space) readLinks(ctx context.Context, ns *netns.NS, _ *reader, is *Namespace) (err error) {
	if x.links, err = rtnl.Links(ctx, ns); err != nil {
		return err
	}
	x.none = nil
	names := x.names()
	byIndex := make(map[int]*Link, len(x.links))
	filters := false
	for i := range x.links {
		from := &x.links[i]
		l := &Link{
			Index: from.Index, Name: from.Name, Kind: from.Kind, Up: from.Flags&unix.IFF_UP != 0, Running: from.Flags&unix.IFF_RUNNING != 0,
			MTU: int(from.MTU), Master: names[from.Master], Detail: detail(from),
		}
		if len(from.MAC) > 0 && !from.IsLoopback() {
			l.MAC = from.MAC.String()
		}
		filters = filters || filtersVLANs(from)
		byIndex[l.Index] = l
		is.Links = append(is.Links, l)
	}
	addrs, err := rtnl.Addrs(ctx, ns, unix.AF_UNSPEC)
	for _, a := range addrs {
		if l := byIndex[a.Link]; l != nil && a.Local.IsValid() {
			l.Addrs = append(l.Addrs, a.Local)
		}
	}
	if filters && err == nil {
		err = readVLANs(ctx, ns, byIndex)
	}
	return err
}

// names are the names of the links by their indexes.
func (x *space) names() map[int]string {
	names := make(map[int]string, len(x.links))
	for _, l := range x.links {
		names[l.Index] = l.Name
	}
	return names
}

func (x *space) readRoutes(ctx context.Context, ns *netns.NS, _ *reader, is *Namespace) error {
	names := x.names()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		routes, err := rtnl.Routes(ctx, ns, family)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.Table != unix.RT_TABLE_MAIN || r.Type != unix.RTN_UNICAST || !r.Dst.IsValid() || r.Dst.Addr().IsMulticast() {
				continue
			}
			is.Routes = append(is.Routes, Route{Dst: r.Dst, Via: r.Gateway, Dev: names[r.Link()]})
		}
	}
	if n := len(is.Routes); n > maxRoutes {
		is.Routes = slices.DeleteFunc(is.Routes, func(r Route) bool { return !r.IsDefault() })
		is.More = n - len(is.Routes)
	}
	return nil
}

func (x *space) readListeners(ctx context.Context, ns *netns.NS, _ *reader, is *Namespace) (err error) {
	is.Listeners, err = listening(ctx, ns)
	return err
}

func (x *space) readFirewall(ctx context.Context, ns *netns.NS, r *reader, is *Namespace) error {
	if r.opts.Firewall == nil {
		return nil
	}
	f, err := r.opts.Firewall(ctx, ns)
	is.Networks, is.Ports, is.Notes = f.Networks, f.Ports, f.Notes
	return err
}
