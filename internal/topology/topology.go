// Package topology reads what a machine's network looks like: its network namespaces, what is in
// them, and how they are wired.
//
// A [Snapshot] is plain data in a fixed order, so that two snapshots of an unchanged machine are
// equal, and so is all that is written from them. What the caller may not read is named in Notes,
// and never silently absent.
package topology

import (
	"cmp"
	"net/netip"
	"slices"
)

// A Snapshot is what a machine's network looked like at one moment.
type Snapshot struct {
	// Namespaces are the network namespaces: the host first, then the others by their titles.
	Namespaces []*Namespace `json:"namespaces"`

	// Notes say what could not be read.
	Notes []string `json:"notes,omitempty"`
}

// A Namespace is a network namespace.
type Namespace struct {
	// Inode is the inode number of the namespace's file, as lsns(8) shows it.
	Inode uint64 `json:"inode"`

	// Own says that it is the host of the snapshot: the reading program's own namespace, or
	// [Options.Host].
	Own bool `json:"own,omitempty"`

	// NSID is the id by which the host knows it (ip-netns(8), list-id). nil where no link of the host
	// leads to it.
	NSID *int `json:"nsid,omitempty"`

	// UserNS is the inode number of the user namespace that owns it, or 0 where the kernel does not
	// say.
	UserNS uint64 `json:"userns,omitempty"`

	// Names are the paths of its bind mounts, as `ip netns` makes them.
	Names []string `json:"names,omitempty"`

	// Processes are those that are in it, by number. Several of them are a pod, or one program's
	// children. Those of the host's are not listed: they are many, and change all the time.
	Processes []Process `json:"processes,omitempty"`

	// Containers are the containers that the processes belong to, by id. Several of them share the
	// namespace, as those of a pod do.
	Containers []Container `json:"containers,omitempty"`

	Links     []*Link    `json:"links,omitempty"`
	Routes    []Route    `json:"routes,omitempty"`
	Listeners []Listener `json:"listeners,omitempty"`

	// Networks and Ports are what the firewall of the namespace translates.
	Networks []Network `json:"networks,omitempty"`
	Ports    []Port    `json:"ports,omitempty"`

	// More is the number of routes that are not among Routes. A namespace with many routes has
	// its default routes there alone.
	More int `json:"more,omitempty"`

	// Notes say what could not be read.
	Notes []string `json:"notes,omitempty"`

	paths  []string // the files by which it may be opened
	unread bool     // its sockets could not be read
}

// A Process is a process in a namespace.
type Process struct {
	Pid  int    `json:"pid"`
	Comm string `json:"comm"` // its name (proc(5), comm)
}

// A Container is what the cgroup of a process says about it.
type Container struct {
	ID      string `json:"id"`                // 64 hexadecimal digits
	Runtime string `json:"runtime,omitempty"` // "docker", "libpod", "cri-containerd", ...
}

// A Link is a network interface.
type Link struct {
	Index   int            `json:"index"`
	Name    string         `json:"name"`
	Kind    string         `json:"kind,omitempty"` // "veth", "bridge", ...; "" for hardware and lo
	Up      bool           `json:"up,omitempty"`
	Running bool           `json:"running,omitempty"` // it has a carrier
	MTU     int            `json:"mtu"`
	MAC     string         `json:"mac,omitempty"`
	Master  string         `json:"master,omitempty"` // the bridge, bond or VRF that it is a port of
	Addrs   []netip.Prefix `json:"addrs,omitempty"`

	// Detail is what sets the link apart from others of its kind: "id 7" of a VLAN, "id 42 remote
	// 192.0.2.1" of a tunnel, in the words of ip-link(8).
	Detail string `json:"detail,omitempty"`

	// VLANs are those that a port of a bridge carries, where the bridge filters them: "1", "10-20".
	VLANs []string `json:"vlans,omitempty"`

	// Peer is the other end of a pair, or the link that a VLAN, a macvlan or the like lies on. nil
	// where there is none, or it could not be found.
	Peer *End `json:"peer,omitempty"`
}

// An End is a link of some namespace.
type End struct {
	Inode uint64 `json:"inode"` // of its namespace
	Link  string `json:"link"`
	Index int    `json:"index"`
}

// A Route is a route of the main table.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	Via netip.Addr   `json:"via,omitzero"`
	Dev string       `json:"dev,omitempty"`
}

// A Listener is a socket that waits for connections or datagrams.
type Listener struct {
	Proto string         `json:"proto"` // "tcp" or "udp"
	Addr  netip.AddrPort `json:"addr"`
}

// A Network is a network of boxes behind the namespace, as package nat has it.
type Network struct {
	Table     string         `json:"table"` // "inet boxwire"
	Interface string         `json:"interface"`
	Subnets   []netip.Prefix `json:"subnets,omitempty"`
	Flags     []string       `json:"flags,omitempty"` // "masquerade", "internal", "isolated", ...
}

// A Port is a port of a namespace that leads to another address: published by package nat, or
// translated by another firewall.
type Port struct {
	Table string         `json:"table"` // "inet boxwire", "ip nat"
	Proto string         `json:"proto"` // "tcp", "udp", ...
	Host  netip.AddrPort `json:"host"`  // an unspecified address is every one of the family
	Last  uint16         `json:"last,omitempty"`
	Box   netip.AddrPort `json:"box"`
	Owner string         `json:"owner,omitempty"`
	If    string         `json:"if,omitempty"` // a condition of the rule that the rest does not say, in nft's words

	// To is the link that has the address of Box, or nil where no namespace of the snapshot has it.
	To *End `json:"to,omitempty"`

	// Fault says why the port does not answer, as far as the snapshot shows. "" is no fault.
	Fault string `json:"fault,omitempty"`
}

// IsDefault reports whether the route is one to everywhere.
func (r Route) IsDefault() bool { return r.Dst.IsValid() && r.Dst.Bits() == 0 }

// via names the gateway, or is "" for a route without one, or with several.
func (r Route) via() string {
	if !r.Via.IsValid() {
		return ""
	}
	return "via " + r.Via.String()
}

// Namespace returns the namespace of an inode number, or nil.
func (s *Snapshot) Namespace(inode uint64) *Namespace {
	for _, n := range s.Namespaces {
		if n.Inode == inode {
			return n
		}
	}
	return nil
}

// byInode are the namespaces by their inode numbers.
func (s *Snapshot) byInode() map[uint64]*Namespace {
	all := make(map[uint64]*Namespace, len(s.Namespaces))
	for _, n := range s.Namespaces {
		all[n.Inode] = n
	}
	return all
}

// sort brings all into the fixed order.
func (s *Snapshot) sort() {
	titles := make(map[*Namespace]string, len(s.Namespaces))
	for _, n := range s.Namespaces {
		titles[n] = n.Title()
	}
	slices.SortFunc(s.Namespaces, func(a, b *Namespace) int {
		if a.Own != b.Own {
			return map[bool]int{true: -1, false: 1}[a.Own]
		}
		return cmp.Or(natural(titles[a], titles[b]), cmp.Compare(a.Inode, b.Inode))
	})
	slices.Sort(s.Notes)
	for _, n := range s.Namespaces {
		slices.Sort(n.Names)
		slices.Sort(n.Notes)
		slices.SortFunc(n.Processes, func(a, b Process) int { return cmp.Compare(a.Pid, b.Pid) })
		slices.SortFunc(n.Links, func(a, b *Link) int { return cmp.Compare(a.Index, b.Index) })
		slices.SortFunc(n.Routes, func(a, b Route) int {
			return cmp.Or(comparePrefixes(a.Dst, b.Dst), a.Via.Compare(b.Via), cmp.Compare(a.Dev, b.Dev))
		})
		slices.SortFunc(n.Listeners, func(a, b Listener) int {
			return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Addr.Port(), b.Addr.Port()), a.Addr.Addr().Compare(b.Addr.Addr()))
		})
		slices.SortFunc(n.Containers, func(a, b Container) int { return cmp.Compare(a.ID, b.ID) })
		slices.SortFunc(n.Networks, func(a, b Network) int {
			return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Interface, b.Interface))
		})
		slices.SortFunc(n.Ports, comparePorts)
		n.Routes, n.Listeners = slices.Compact(n.Routes), slices.Compact(n.Listeners)
		for _, l := range n.Links {
			slices.SortFunc(l.Addrs, comparePrefixes)
		}
	}
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Host.Port(), b.Host.Port()), cmp.Compare(a.Proto, b.Proto), a.Host.Addr().Compare(b.Host.Addr()),
		cmp.Compare(a.Table, b.Table), a.Box.Compare(b.Box), cmp.Compare(a.Owner, b.Owner))
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
