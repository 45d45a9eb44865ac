package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/vishvananda/netlink"
)

// A bareKey makes and removes the link that a configuration asks for by plain netlink: what every plugin
// has the kernel do. It assigns no address from a pool, has no firewall, and looks at nothing.
type bareKey struct {
	street
	plugin string
	vlans  bool
	handle *netlink.Handle // of the host
	bridge *netlink.Bridge // nil without
	uplink netlink.Link
}

func newBareKey(ctx context.Context, plugin string, vlans bool) (k *bareKey, err error) {
	k = &bareKey{plugin: plugin, vlans: vlans}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	if k.street, err = newStreet(ctx); err != nil {
		return k, err
	}
	if k.handle, err = peek(k.host.WithFd); err != nil {
		return k, err
	}
	if k.uplink, err = k.handle.LinkByName("uplink0"); err != nil || plugin != "bridge" {
		return k, err
	}
	k.bridge = &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName, Flags: net.FlagUp}}
	if vlans {
		k.bridge.VlanFiltering = &vlans
	}
	return k, k.handle.LinkAdd(k.bridge)
}

func (k *bareKey) close() error {
	if k.handle != nil {
		k.handle.Close()
	}
	k.street.close()
	return nil
}

func (k *bareKey) turn(ctx context.Context, _ int) (add, del time.Duration, err error) {
	ns, err := netns.New(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer ns.Close()
	box, err := peek(ns.WithFd)
	if err != nil {
		return 0, 0, err
	}
	defer box.Close()
	is := func(want bool) error {
		_, err := box.LinkByName("eth0")
		if gone := errors.As(err, &netlink.LinkNotFoundError{}); err == nil || gone {
			err = nil
			if gone == want {
				err = fmt.Errorf("the box has its link: %t, want %t", !gone, want)
			}
		}
		return err
	}
	add, err = took(func() error { return k.attach(ctx, ns, box) })
	if err == nil {
		err = is(true)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("making the link: %w", err)
	}
	del, err = took(func() error { return k.detach(box) })
	if err == nil {
		err = is(false)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("removing the link: %w", err)
	}
	return add, del, nil
}

// attach makes the link, with an address.
func (k *bareKey) attach(ctx context.Context, ns *netns.NS, box *netlink.Handle) error {
	err := ns.WithFd(func(fd int) error {
		switch k.plugin {
		case "tap":
			return nil
		case "macvlan":
			return k.handle.LinkAdd(&netlink.Macvlan{Mode: netlink.MACVLAN_MODE_BRIDGE, LinkAttrs: netlink.LinkAttrs{
				Name: "eth0", ParentIndex: k.uplink.Attrs().Index, Namespace: netlink.NsFd(fd),
			}})
		}
		pair := netlink.LinkAttrs{Name: hostLink(0), Flags: net.FlagUp}
		if k.bridge != nil {
			pair.MasterIndex = k.bridge.Index
		}
		return k.handle.LinkAdd(&netlink.Veth{LinkAttrs: pair, PeerName: "eth0", PeerNamespace: netlink.NsFd(fd)})
	})
	if err == nil && k.plugin == "tap" {
		_, err = link.Create(ctx, ns, link.Spec{Name: "eth0", Kind: link.Tun{Tap: true, Persist: true}}) // ioctl(2)
	}
	if err == nil && k.vlans {
		var end netlink.Link
		if end, err = k.handle.LinkByName(hostLink(0)); err == nil {
			err = k.handle.BridgeVlanAdd(end, 100, true, true, false, true)
		}
	}
	if err != nil {
		return err
	}
	eth, err := box.LinkByName("eth0")
	if err == nil {
		err = box.LinkSetUp(eth)
	}
	if err == nil {
		err = box.AddrAdd(eth, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 88, 0, 2), Mask: net.CIDRMask(16, 32)}})
	}
	return err
}

// detach removes the link, by the end that the plugin of its kind has.
func (k *bareKey) detach(box *netlink.Handle) error {
	from, name := k.handle, hostLink(0)
	if k.plugin == "macvlan" || k.plugin == "tap" {
		from, name = box, "eth0"
	}
	l, err := from.LinkByName(name)
	if err == nil {
		err = from.LinkDel(l)
	}
	return err
}
