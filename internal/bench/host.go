package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
)

// A host is the namespace that a contender works in, with a bridge; no two
// contenders share one. It is set up and looked at without anything being timed.
type host struct {
	ns     *netns.NS
	bridge int             // index
	handle *netlink.Handle // of another library, to look at the result with
	boxes  []*os.File      // namespaces of the boxes, which keep them alive
}

const (
	bridgeName = "br0"
	gateway4   = "10.88.0.1"
)

// boxAddr is the address of the box of round i.
func boxAddr(i int) netip.Prefix {
	n := i + 2
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, byte(n >> 8), byte(n)}), 16)
}

// hostLink is the name of its link on the host's side.
func hostLink(i int) string { return fmt.Sprintf("box%d", i) }

func newHost(ctx context.Context) (h *host, err error) {
	h = &host{}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.ns, err = netns.New(ctx); err != nil {
		return h, err
	}
	br, err := link.Create(ctx, h.ns, link.Spec{
		Name: bridgeName, Up: true, Kind: link.Bridge{},
		MAC:   []byte{2, 0, 0, 0, 0, 1},
		Addrs: []netip.Prefix{netip.MustParsePrefix(gateway4 + "/16")},
	})
	if err != nil {
		return h, err
	}
	h.bridge = br.Index
	h.handle, err = peek(h.ns.WithFd)
	return h, err
}

// peek opens a socket of the other library in a namespace.
func peek(withFd func(func(int) error) error) (handle *netlink.Handle, err error) {
	err = withFd(func(fd int) (err error) {
		handle, err = netlink.NewHandleAt(vnetns.NsHandle(fd), 0)
		return err
	})
	return handle, err
}

// keep holds a box's namespace until the end.
func (h *host) keep(ns *netns.NS) error {
	f, err := hold(ns)
	if err == nil {
		h.boxes = append(h.boxes, f)
	}
	return err
}

// hold opens a namespace as a file and no more.
func hold(ns *netns.NS) (f *os.File, err error) {
	err = ns.WithFd(func(fd int) error {
		f, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
		return err
	})
	return f, err
}

// check looks at every box: loopback up, one link with its address up, a default
// route; and at the bridges, which must have as many ports that are up.
func (h *host) check(context.Context) error {
	links, err := h.handle.LinkList()
	if err != nil {
		return err
	}
	ports := 0
	for _, l := range links {
		if l.Attrs().MasterIndex != 0 && l.Attrs().RawFlags&1 != 0 {
			ports++
		}
	}
	if ports != len(h.boxes) || ports == 0 {
		return fmt.Errorf("%d ports of the bridge are up, with %d boxes", ports, len(h.boxes))
	}
	for i, box := range h.boxes {
		if err := checkBox(box, i); err != nil {
			return fmt.Errorf("box %d: %w", i, err)
		}
	}
	return nil
}

func checkBox(box *os.File, i int) error {
	handle, err := peek(func(fn func(int) error) error { return fn(int(box.Fd())) })
	if err != nil {
		return err
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := handle.LinkByName("eth0")
	if err != nil {
		return err
	}
	if lo.Attrs().RawFlags&1 == 0 || eth.Attrs().RawFlags&1 == 0 {
		return errors.New("lo or eth0 is down")
	}
	addrs, err := handle.AddrList(eth, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	if len(addrs) != 1 || addrs[0].IPNet.String() != boxAddr(i).String() {
		return fmt.Errorf("addresses %v, want %v", addrs, boxAddr(i))
	}
	routes, err := handle.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 254}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Gw.String() == gateway4 {
			return nil
		}
	}
	return errors.New("no default route")
}

// close lets the host and its boxes go, links first: the kernel takes a
// namespace with links apart slowly, and in the background of what is timed next.
func (h *host) close() error {
	if h.ns == nil {
		return nil
	}
	if h.handle != nil {
		h.handle.Close()
	}
	for _, f := range h.boxes {
		f.Close()
	}
	h.boxes = nil
	return h.ns.Close()
}
