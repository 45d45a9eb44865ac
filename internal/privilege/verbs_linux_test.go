package privilege_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/privilege"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"golang.org/x/sys/unix"
)

// place is where the verbs are called: the process's own namespace, which prepare
// has furnished, and another one.
type place struct {
	own, other *netns.NS
	name       string // of what has a name in netns.DefaultDir, with a suffix
}

// verb is a call of one exported function or method, and what it takes.
type verb struct {
	name  string // as missing compares it: "link.Link.SetUp"
	needs caps   // all of them
	call  func(ctx context.Context, p place) error

	// machine says that the capability counts in the machine's user namespace: those of
	// another do not help. There root of a user namespace may be refused.
	machine bool

	// since is the first kernel that has it, 5.10 if zero; inUserNS is the first where it
	// works in a user namespace.
	since, inUserNS version

	// opens is a file of the machine that has to be readable and writable.
	opens string
}

const tunDevice = "/dev/net/tun"

type version struct{ major, minor int }

// caps are capabilities.
type caps []privilege.Cap

var (
	prefix = netip.MustParsePrefix
	addr   = netip.MustParseAddr
)

// prepare furnishes the namespace: a bridge br0 with the port p0, whose peer p1 has an
// address, and a spare veth.
func prepare(ctx context.Context, ns *netns.NS, name string) error {
	lo, err := link.Get(ctx, ns, "lo")
	if err != nil {
		return err
	}
	if err := lo.SetUp(ctx); err != nil {
		return err
	}
	br, err := link.Create(ctx, ns, link.Spec{Name: "br0", Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{prefix("10.9.0.1/24")}})
	if err != nil {
		return err
	}
	_, err = link.Create(ctx, ns, link.Spec{Name: "p0", Up: true, Master: br.Ref(), Kind: link.Veth{
		Peer: link.Spec{Name: "p1", AltNames: []string{"spare"}, Up: true, Addrs: []netip.Prefix{prefix("10.9.0.2/24")}},
	}})
	if err != nil {
		return err
	}
	_, err = link.Create(ctx, ns, link.Spec{Name: "s0", Kind: link.Veth{Peer: link.Spec{Name: "s1"}}})
	if err != nil {
		return err
	}
	for _, suffix := range []string{"-delete", "-rename", "-handle"} {
		named, err := netns.Create(ctx, name+suffix)
		if err != nil {
			return err
		}
		named.Close()
	}
	return nil
}

// unname takes away the names that may be left.
func unname(ctx context.Context, name string) {
	for _, suffix := range []string{"-delete", "-rename", "-renamed", "-handle", "-create", "-ensure", "-pin"} {
		_ = netns.Delete(ctx, name+suffix)
	}
}

// closing closes what a call has returned.
func closing[T interface{ Close() error }](v T, err error) error {
	if err != nil {
		return err
	}
	return v.Close()
}

func second[T any](_ T, err error) error { return err }

// first waits for the first item of a watch.
func first[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		return err
	}
	return errors.New("the watch has ended")
}

// on calls f with a link of the own namespace.
func on(name string, f func(context.Context, link.Link) error) func(context.Context, place) error {
	return func(ctx context.Context, p place) error {
		l, err := link.Get(ctx, p.own, name)
		if err != nil {
			return err
		}
		return f(ctx, l)
	}
}

// in calls f with the own namespace.
func in(f func(context.Context, *netns.NS) error) func(context.Context, place) error {
	return func(ctx context.Context, p place) error { return f(ctx, p.own) }
}

// gateway calls f with a NAT of the own namespace.
func gateway(f func(context.Context, *nat.NAT) error) func(context.Context, place) error {
	return func(ctx context.Context, p place) error {
		n, err := nat.Open(ctx, p.own, nat.Options{Name: "table"})
		if err != nil {
			return err
		}
		defer n.Close()
		return f(ctx, n)
	}
}

// readAllRoutes reads the routes again while they change, as route.All wants: the IPv6 routes
// of the links that prepare has made come while their addresses are checked.
func readAllRoutes(ctx context.Context, ns *netns.NS) error {
	for {
		var last error
		for _, last = range route.All(ctx, ns, route.Filter{}) {
		}
		if !errors.Is(last, route.ErrInterrupted) {
			return last
		}
	}
}

var netnsVerbs = []verb{
	{name: "netns.ListAll", needs: caps{privilege.SysPtrace}, machine: true, call: func(ctx context.Context, p place) error { return second(netns.ListAll(ctx)) }},
	{name: "netns.Current", call: func(context.Context, place) error { return closing(netns.Current()) }},
	{name: "netns.New", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error { return closing(netns.New(ctx)) }},
	{name: "netns.NewInUserNS", needs: caps{privilege.SysAdmin, privilege.SetFCap}, call: func(ctx context.Context, p place) error {
		return closing(netns.NewInUserNS(ctx, netns.UserNS{}))
	}},
	{name: "netns.Pool.Get", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		pool, err := netns.NewPool(1)
		if err != nil {
			return err
		}
		defer pool.Close()
		return closing(pool.Get(ctx))
	}},
	{name: "netns.Do", call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(netns.Do(ctx, ns, func(context.Context) (int, error) { return 0, nil }))
	})},
	{name: "netns.Do elsewhere", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		return second(netns.Do(ctx, p.other, func(context.Context) (int, error) { return 0, nil }))
	}},
	{name: "netns.List", call: func(ctx context.Context, p place) error { return second(netns.List(ctx)) }},
	{name: "netns.Watch", call: func(ctx context.Context, p place) error { return first(netns.Watch(ctx)) }},
	{name: "netns.Create", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		return closing(netns.Create(ctx, p.name+"-create"))
	}},
	{name: "netns.Ensure", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		return closing(netns.Ensure(ctx, p.name+"-ensure"))
	}},
	{name: "netns.Pin", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		return closing(netns.Pin(ctx, p.other, p.name+"-pin"))
	}},
	{name: "netns.Open", call: func(ctx context.Context, p place) error { return closing(netns.Open(ctx, p.name+"-handle")) }},
	{name: "netns.OpenPath", call: func(ctx context.Context, p place) error {
		return closing(netns.OpenPath(ctx, "/run/netns/"+p.name+"-handle"))
	}},
	{name: "netns.Rename", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		return netns.Rename(ctx, p.name+"-rename", p.name+"-renamed")
	}},
	{name: "netns.Delete", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error { return netns.Delete(ctx, p.name+"-delete") }},
	{name: "netns.NS.Delete", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		ns, err := netns.Open(ctx, p.name+"-handle")
		if err != nil {
			return err
		}
		defer ns.Close()
		return ns.Delete(ctx)
	}},
	{name: "netns.OpenPid", call: func(ctx context.Context, p place) error { return closing(netns.OpenPid(ctx, os.Getpid())) }},
	{name: "netns.OpenPid of another", needs: caps{privilege.SysPtrace}, machine: true, call: func(ctx context.Context, p place) error {
		return closing(netns.OpenPid(ctx, os.Getppid()))
	}},
	{name: "netns.OpenTid", call: func(ctx context.Context, p place) error { return closing(netns.OpenTid(ctx, os.Getpid())) }},
	{name: "netns.OpenPidfd", call: func(ctx context.Context, p place) error {
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return closing(netns.OpenPidfd(ctx, fd))
	}},
	{name: "netns.OpenContainer", call: func(ctx context.Context, p place) error {
		return netns.IgnoreNotExist(closing(netns.OpenContainer(ctx, "0123456789ab")))
	}},
	{name: "netns.OpenFd", call: in(func(_ context.Context, ns *netns.NS) error {
		return ns.WithFd(func(fd int) error { return closing(netns.OpenFd(fd)) })
	})},
	{name: "netns.OpenSocket", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		c, err := ns.ListenPacket(ctx, "udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer c.Close()
		return closing(netns.OpenSocket(c.(*net.UDPConn)))
	})},
	{name: "netns.NS.Owner", call: in(func(_ context.Context, ns *netns.NS) error { return second(ns.Owner()) })},
	{name: "netns.NS.Cookie", call: in(func(ctx context.Context, ns *netns.NS) error {
		if _, err := ns.Cookie(ctx); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		return nil
	})},
	{name: "netns.NS.Holders", needs: caps{privilege.SysPtrace}, machine: true, call: in(func(ctx context.Context, ns *netns.NS) error { return second(ns.Holders(ctx)) })},
	{name: "netns.NS.Sysctl", call: in(func(ctx context.Context, ns *netns.NS) error { return second(ns.Sysctl(ctx, "net.ipv4.ip_forward")) })},
	{name: "netns.NS.Sysctl elsewhere", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		return second(p.other.Sysctl(ctx, "net.ipv4.ip_forward"))
	}},
	{name: "netns.NS.SetSysctl", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return ns.SetSysctl(ctx, "net.ipv4.ip_forward", "1")
	})},
	{name: "netns.NS.NSID", call: func(ctx context.Context, p place) error {
		return netns.IgnoreNotExist(second(p.own.NSID(ctx, p.other)))
	}},
	{name: "netns.NS.NSIDs", call: in(func(ctx context.Context, ns *netns.NS) error { return second(ns.NSIDs(ctx)) })},
	{name: "netns.NS.AssignNSID", needs: caps{privilege.NetAdmin}, call: func(ctx context.Context, p place) error { return p.own.AssignNSID(ctx, p.other, 7) }},
	{name: "netns.NS.EnsureNSID", needs: caps{privilege.NetAdmin}, call: func(ctx context.Context, p place) error {
		return second(p.own.EnsureNSID(ctx, p.other))
	}},
	{name: "netns.NS.OpenNSID", call: func(ctx context.Context, p place) error {
		return netns.IgnoreNotExist(closing(p.own.OpenNSID(ctx, 99)))
	}},
	{name: "netns.NS.Command", call: in(func(ctx context.Context, ns *netns.NS) error {
		return ns.Command(ctx, "/proc/self/exe", "-test.run=^$").Run()
	})},
	{name: "netns.NS.Dial", call: in(func(ctx context.Context, ns *netns.NS) error { return closing(ns.Dial(ctx, "udp", "127.0.0.1:9")) })},
	{name: "netns.NS.Dial elsewhere", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		return closing(p.other.Dial(ctx, "udp", "127.0.0.1:9"))
	}},
	{name: "netns.NS.Dial of a name elsewhere", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		err := closing(p.other.Dial(ctx, "udp", "a.invalid:9"))
		var dns *net.DNSError
		if errors.As(err, &dns) { // there is no server to ask
			return nil
		}
		return err
	}},
	{name: "netns.NS.DialContext", call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(ns.DialContext(ctx, "udp", "127.0.0.1:9"))
	})},
	{name: "netns.NS.DialWith", call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(ns.DialWith(ctx, net.Dialer{}, "udp", "127.0.0.1:9"))
	})},
	{name: "netns.NS.Listen", call: in(func(ctx context.Context, ns *netns.NS) error { return closing(ns.Listen(ctx, "tcp", "127.0.0.1:0")) })},
	{name: "netns.NS.Listen below 1024", needs: caps{privilege.NetBindService}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(ns.Listen(ctx, "tcp", "127.0.0.1:80"))
	})},
	{name: "netns.NS.ListenWith", call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(ns.ListenWith(ctx, net.ListenConfig{}, "tcp", "127.0.0.1:0"))
	})},
	{name: "netns.NS.ListenPacket", call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(ns.ListenPacket(ctx, "udp", "127.0.0.1:0"))
	})},
	{name: "netns.NS.ListenPacket of raw packets", needs: caps{privilege.NetRaw}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(ns.ListenPacket(ctx, "ip4:icmp", "127.0.0.1"))
	})},
	{name: "netns.NS.ListenPacketWith", needs: caps{privilege.NetBindService}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(ns.ListenPacketWith(ctx, net.ListenConfig{}, "udp", "127.0.0.1:53"))
	})},
	{name: "netns.NS.Socket", needs: caps{privilege.NetRaw}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(ns.Socket(ctx, unix.AF_PACKET, unix.SOCK_RAW, 0))
	})},
	{name: "netns.NS.DialNetlink", call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(ns.DialNetlink(ctx, unix.NETLINK_ROUTE, nil))
	})},
	{name: "nsconn.Subscribe", call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(nsconn.Subscribe(ctx, ns, unix.NETLINK_ROUTE, nl.EventConfig{Groups: []uint32{unix.RTNLGRP_LINK}}))
	})},
}

var mac = net.HardwareAddr{2, 0, 0, 0, 0, 9}

var linkVerbs = []verb{
	{name: "link.List", call: in(func(ctx context.Context, ns *netns.NS) error { return second(link.List(ctx, ns, link.Filter{})) })},
	{name: "link.List elsewhere", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		return second(link.List(ctx, p.other, link.Filter{}))
	}},
	{name: "link.Get", call: in(func(ctx context.Context, ns *netns.NS) error { return second(link.Get(ctx, ns, "lo")) })},
	{name: "link.ByIndex", call: in(func(ctx context.Context, ns *netns.NS) error { return second(link.ByIndex(ctx, ns, 1)) })},
	{name: "link.ListByAlias", call: in(func(ctx context.Context, ns *netns.NS) error {
		return netns.IgnoreNotExist(second(link.ListByAlias(ctx, ns, "x")))
	})},
	{name: "link.ListByMAC", call: in(func(ctx context.Context, ns *netns.NS) error {
		return netns.IgnoreNotExist(second(link.ListByMAC(ctx, ns, mac)))
	})},
	{name: "link.ListAddrs", call: in(func(ctx context.Context, ns *netns.NS) error { return second(link.ListAddrs(ctx, ns)) })},
	{name: "link.ListFDB", call: in(func(ctx context.Context, ns *netns.NS) error { return second(link.ListFDB(ctx, ns, link.FDBFilter{})) })},
	{name: "link.ListNeighbours", call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(link.ListNeighbours(ctx, ns, link.NeighbourFilter{}))
	})},
	{name: "link.Watch", call: in(func(ctx context.Context, ns *netns.NS) error { return first(link.Watch(ctx, ns, link.TopicLinks)) })},
	{name: "link.WatchAll", needs: caps{privilege.NetBroadcast}, call: in(func(ctx context.Context, ns *netns.NS) error { return first(link.WatchAll(ctx, ns, link.TopicLinks)) })},
	{name: "link.Create", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(link.Create(ctx, ns, link.Spec{Name: "c0", Kind: link.Veth{Peer: link.Spec{Name: "c1"}}}))
	})},
	{name: "link.Ensure", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(link.Ensure(ctx, ns, link.Spec{Name: "e0", Kind: link.Bridge{}}))
	})},
	{name: "link.OpenTun", opens: tunDevice, needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		_, files, err := link.OpenTun(ctx, ns, link.Spec{Name: "t0", Kind: link.Tun{MultiQueue: true, Persist: true}}, 1)
		for _, f := range files {
			f.Close()
		}
		return err
	})},
	{name: "link.DeleteAll", needs: caps{privilege.NetAdmin}, call: on("s0", func(ctx context.Context, l link.Link) error { return link.DeleteAll(ctx, l) })},
	{name: "link.Link.OpenQueues", opens: tunDevice, needs: caps{privilege.NetAdmin}, call: func(ctx context.Context, p place) error {
		l, err := link.Get(ctx, p.own, "t0")
		if errors.Is(err, os.ErrNotExist) { // link.OpenTun could not make it
			_, err = link.Create(ctx, p.own, link.Spec{Name: "t0", Kind: link.Tun{MultiQueue: true, Persist: true}})
			return err
		}
		files, err := l.OpenQueues(ctx, 1)
		for _, f := range files {
			f.Close()
		}
		return err
	}},
	{name: "link.Link.SetUp", needs: caps{privilege.NetAdmin}, call: on("br0", func(ctx context.Context, l link.Link) error { return l.SetUp(ctx) })},
	{name: "link.Link.Details", call: on("br0", func(ctx context.Context, l link.Link) error { return second(l.Details(ctx)) })},
	{name: "link.Link.Stats", call: on("br0", func(ctx context.Context, l link.Link) error { return second(l.Stats(ctx)) })},
	{name: "link.Link.WaitUp", call: on("p0", func(ctx context.Context, l link.Link) error { return second(l.WaitUp(ctx)) })},
	{name: "link.Link.WaitCarrier", call: on("p0", func(ctx context.Context, l link.Link) error { return second(l.WaitCarrier(ctx)) })},
	{name: "link.Link.WaitForwarding", call: on("p0", func(ctx context.Context, l link.Link) error { return l.WaitForwarding(ctx) })},
	{name: "link.Link.WaitReachable", call: on("p1", func(ctx context.Context, l link.Link) error { return l.WaitReachable(ctx) })},
	{name: "link.Link.WaitAddr", call: on("p1", func(ctx context.Context, l link.Link) error { return l.WaitAddr(ctx) })},
	{name: "link.Link.WaitGone", call: on("p1", func(ctx context.Context, l link.Link) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if err := l.WaitGone(ctx); !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the link is there, and it has not been waited for: %w", err)
		}
		return nil
	})},
	{name: "link.Link.Addrs", call: on("p1", func(ctx context.Context, l link.Link) error { return second(l.Addrs(ctx)) })},
	{name: "link.Link.Neighbours", call: on("p1", func(ctx context.Context, l link.Link) error { return second(l.Neighbours(ctx)) })},
	{name: "link.Link.Port", call: on("p0", func(ctx context.Context, l link.Link) error { return second(l.Port(ctx)) })},
	{name: "link.Link.Rates", call: on("p1", func(ctx context.Context, l link.Link) error {
		_, _, err := l.Rates(ctx)
		return err
	})},
	{name: "link.Link.Features", call: on("p1", func(ctx context.Context, l link.Link) error { return second(l.Features(ctx)) })},
	{name: "link.Link.VLANs", call: on("p0", func(ctx context.Context, l link.Link) error { return second(l.VLANs(ctx)) })},
	{name: "link.Link.AddVLANs", needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error {
		return l.AddVLANs(ctx, link.PortVLAN{ID: 7})
	})},
	{name: "link.Link.SyncVLANs", needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error {
		return l.SyncVLANs(ctx, link.PortVLAN{ID: 1}, link.PortVLAN{ID: 8})
	})},
	{name: "link.Link.DeleteVLANs", needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error {
		return l.DeleteVLANs(ctx, link.PortVLAN{ID: 1}) // each port has it, and SyncVLANs has left it
	})},
	{name: "link.Link.AddPrefixes", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error { return l.AddPrefixes(ctx, prefix("10.9.1.1/24")) })},
	{name: "link.Link.AddAddrs", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.AddAddrs(ctx, link.Addr{Prefix: prefix("10.9.2.1/24")})
	})},
	{name: "link.Link.ReplaceAddrs", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.ReplaceAddrs(ctx, link.Addr{Prefix: prefix("10.9.3.1/24")})
	})},
	{name: "link.Link.DeleteAddrs", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.DeleteAddrs(ctx, prefix("10.9.1.1/24"))
	})},
	{name: "link.Link.FlushAddrs", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.FlushAddrs(ctx, func(a link.Addr) bool { return true })
	})},
	{name: "link.Link.AddNeighbours", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.AddNeighbours(ctx, link.Neighbour{Addr: addr("10.9.0.9"), MAC: mac})
	})},
	{name: "link.Link.ReplaceNeighbours", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.ReplaceNeighbours(ctx, link.Neighbour{Addr: addr("10.9.0.10"), MAC: mac})
	})},
	{name: "link.Link.DeleteNeighbours", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.DeleteNeighbours(ctx, link.Neighbour{Addr: addr("10.9.0.9")})
	})},
	{name: "link.Link.SyncNeighbours", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		_, err := l.SyncNeighbours(ctx, 99, link.Neighbour{Addr: addr("10.9.0.11"), MAC: mac})
		return err
	})},
	{name: "link.Link.FlushNeighbours", call: on("p0", func(ctx context.Context, l link.Link) error {
		return l.FlushNeighbours(ctx, func(link.Neighbour) bool { return false }) // has none to delete
	})},
	{name: "link.Link.AddFDBEntries", needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error {
		return l.AddFDBEntries(ctx, link.FDBEntry{MAC: mac})
	})},
	{name: "link.Link.ReplaceFDBEntries", needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error {
		return l.ReplaceFDBEntries(ctx, link.FDBEntry{MAC: mac})
	})},
	{name: "link.Link.AppendFDBEntries", needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error {
		err := l.AppendFDBEntries(ctx, link.FDBEntry{MAC: mac})
		if errors.Is(err, os.ErrInvalid) || errors.Is(err, os.ErrExist) { // it is for a VXLAN's hosts
			err = second(link.Create(ctx, l.NS(), link.Spec{Name: "x0", Kind: link.Bridge{}}))
		}
		return err
	})},
	{name: "link.Link.SyncFDB", needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error {
		other := append(net.HardwareAddr(nil), mac...)
		other[5]++
		_, err := l.SyncFDB(ctx, link.FDBEntry{MAC: mac}, link.FDBEntry{MAC: other}) // keeps the one that is there
		return err
	})},
	{name: "link.Link.DeleteFDBEntries", inUserNS: version{6, 18}, needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error {
		return l.DeleteFDBEntries(ctx, link.FDBEntry{MAC: mac})
	})},
	{name: "link.Link.FlushFDB", call: on("p0", func(ctx context.Context, l link.Link) error {
		return l.FlushFDB(ctx, func(link.FDBEntry) bool { return false }) // has none to delete
	})},
	{name: "link.Link.SetPort", needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error {
		return l.SetPort(ctx, link.PortOptions{Hairpin: new(true)})
	})},
	{name: "link.Link.SetRate", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.SetRate(ctx, link.Limit{Rate: 8_000_000}, link.Limit{})
	})},
	{name: "link.Link.SetFeatures", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.SetFeatures(ctx, map[string]bool{"tx-checksum-ip-generic": false})
	})},
	{name: "link.Link.Announce", needs: caps{privilege.NetRaw}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.Announce(ctx, addr("10.9.0.2"))
	})},
	{name: "link.Link.SetAlias", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error { return l.SetAlias(ctx, "a") })},
	{name: "link.Link.SetGroup", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error { return l.SetGroup(ctx, 7) })},
	{name: "link.Link.DeleteAltNames", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return l.DeleteAltNames(ctx, "spare")
	})},
	{name: "link.Link.Update", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error {
		return second(l.Update(ctx, link.Spec{MTU: 1400}))
	})},
	{name: "link.Link.SetMaster", needs: caps{privilege.NetAdmin}, call: on("p0", func(ctx context.Context, l link.Link) error { return l.SetMaster(ctx, link.Ref{}) })},
	{name: "link.Link.SetDown", needs: caps{privilege.NetAdmin}, call: on("p1", func(ctx context.Context, l link.Link) error { return l.SetDown(ctx) })},
	{name: "link.Link.Move", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		l, err := link.Get(ctx, p.own, "p0")
		if err != nil {
			return err
		}
		return second(l.Move(ctx, p.other, link.MoveOptions{}))
	}},
	{name: "link.Link.Delete", needs: caps{privilege.NetAdmin}, call: on("br0", func(ctx context.Context, l link.Link) error { return l.Delete(ctx) })},
}

var way = route.To(prefix("10.20.0.0/24"), addr("10.9.0.9"))

var (
	rule = route.Rule{Family: route.IPv4, Priority: 100, From: prefix("10.20.0.0/24"), Table: 100}
	hop  = route.NextHop{ID: 5, Family: route.IPv4, Blackhole: true}
)

var routeVerbs = []verb{
	{name: "route.List", call: in(func(ctx context.Context, ns *netns.NS) error { return second(route.List(ctx, ns, route.Filter{})) })},
	{name: "route.List elsewhere", needs: caps{privilege.SysAdmin}, call: func(ctx context.Context, p place) error {
		return second(route.List(ctx, p.other, route.Filter{}))
	}},
	{name: "route.All", call: in(readAllRoutes)},
	{name: "route.ListRules", call: in(func(ctx context.Context, ns *netns.NS) error { return second(route.ListRules(ctx, ns, 0)) })},
	{name: "route.Lookup", call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(route.Lookup(ctx, ns, route.Query{Dst: addr("10.9.0.9")}))
	})},
	{name: "route.Watch", call: in(func(ctx context.Context, ns *netns.NS) error { return first(route.Watch(ctx, ns, route.Filter{})) })},
	{name: "route.WatchRules", call: in(func(ctx context.Context, ns *netns.NS) error { return first(route.WatchRules(ctx, ns, 0)) })},
	{name: "route.WatchNextHops", call: in(func(ctx context.Context, ns *netns.NS) error { return first(route.WatchNextHops(ctx, ns)) })},
	{name: "route.ListNextHops", call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(route.ListNextHops(ctx, ns, route.NextHopFilter{}))
	})},
	{name: "route.Add", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error { return route.Add(ctx, ns, way) })},
	{name: "route.Replace", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error { return route.Replace(ctx, ns, way) })},
	{name: "route.Change", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error { return route.Change(ctx, ns, way) })},
	{name: "route.Append", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return route.Append(ctx, ns, route.To(prefix("10.20.0.0/24"), addr("10.9.0.10")))
	})},
	{name: "route.Delete", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error { return route.Delete(ctx, ns, way) })},
	{name: "route.Sync", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(route.Sync(ctx, ns, 99, route.To(prefix("10.21.0.0/24"), addr("10.9.0.9"))))
	})},
	{name: "route.Flush", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(route.Flush(ctx, ns, route.Filter{Table: route.TableMain, Protocol: route.ProtoKernel}))
	})},
	{name: "route.AddRules", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error { return route.AddRules(ctx, ns, rule) })},
	{name: "route.DeleteRules", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error { return route.DeleteRules(ctx, ns, rule) })},
	{name: "route.SyncRules", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(route.SyncRules(ctx, ns, 99, rule))
	})},
	{name: "route.AddNextHops", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error { return route.AddNextHops(ctx, ns, hop) })},
	{name: "route.AddNextHop", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(route.AddNextHop(ctx, ns, route.NextHop{Family: route.IPv4, Blackhole: true}))
	})},
	{name: "route.ReplaceNextHops", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error { return route.ReplaceNextHops(ctx, ns, hop) })},
	{name: "route.GetNextHop", call: in(func(ctx context.Context, ns *netns.NS) error {
		return netns.IgnoreNotExist(second(route.GetNextHop(ctx, ns, 5)))
	})},
	{name: "route.ListBuckets", since: version{5, 13}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return netns.IgnoreNotExist(second(route.ListBuckets(ctx, ns, 77)))
	})},
	{name: "route.DeleteNextHops", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error { return route.DeleteNextHops(ctx, ns, 5) })},
}
