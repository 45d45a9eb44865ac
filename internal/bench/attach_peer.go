package main

import (
	"context"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
)

// inPlaceAttach is what a careful user of the other library writes: the peer is
// made in its namespace.
func inPlaceAttach(h *host) (*contender, error) { return inPlace(h, nameInPlace, 0) }

// oneQueueAttach asks for what the library has unasked.
func oneQueueAttach(h *host) (*contender, error) { return inPlace(h, nameInPlaceQueue, oneQueue) }

// inPlace makes pairs with so many queues (0: as many as the kernel makes).
func inPlace(h *host, name string, queues int) (*contender, error) {
	return peerAttach(h, name, func(ns vnetns.NsHandle, i int) error {
		veth := &netlink.Veth{
			LinkAttrs:       netlink.LinkAttrs{Name: hostLink(i), MasterIndex: h.bridge, TxQLen: -1, Flags: net.FlagUp, NumTxQueues: queues, NumRxQueues: queues},
			PeerName:        "eth0",
			PeerNamespace:   netlink.NsFd(ns),
			PeerNumTxQueues: uint32(queues),
			PeerNumRxQueues: uint32(queues),
		}
		if err := h.handle.LinkAdd(veth); err != nil {
			return err
		}
		if err := h.handle.LinkSetUp(veth); err != nil {
			return err
		}
		return peerFurnish(ns, "eth0", i)
	})
}

// moveAttach is what Docker's bridge driver and its sandbox do with it: both ends
// are made on the host, one is moved and renamed.
func moveAttach(h *host) (*contender, error) {
	return peerAttach(h, nameMove, func(ns vnetns.NsHandle, i int) error {
		peer := "p" + hostLink(i)
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: hostLink(i), TxQLen: 0}, PeerName: peer}
		if err := h.handle.LinkAdd(veth); err != nil {
			return err
		}
		host, err := h.handle.LinkByName(hostLink(i))
		if err != nil {
			return err
		}
		box, err := h.handle.LinkByName(peer)
		if err != nil {
			return err
		}
		if err := h.handle.LinkSetMasterByIndex(host, h.bridge); err != nil {
			return err
		}
		if err := h.handle.LinkSetUp(host); err != nil {
			return err
		}
		if err := h.handle.LinkSetNsFd(box, int(ns)); err != nil {
			return err
		}
		return peerFurnish(ns, peer, i)
	})
}

// peerAttach measures plug together with the making of the namespace.
func peerAttach(h *host, name string, plug func(ns vnetns.NsHandle, i int) error) (*contender, error) {
	return &contender{name: name, round: func(_ context.Context, i int) (time.Duration, error) {
		var ns vnetns.NsHandle
		d, err := took(func() (err error) {
			if ns, err = peerNamespace(); err != nil {
				return err
			}
			return plug(ns, i)
		})
		if err != nil {
			return d, err
		}
		h.boxes = append(h.boxes, os.NewFile(uintptr(ns), "netns"))
		return d, nil
	}}, nil
}

// peerNamespace makes a namespace as that library's users do.
func peerNamespace() (vnetns.NsHandle, error) {
	runtime.LockOSThread()
	home, err := vnetns.Get()
	if err != nil {
		return -1, err
	}
	defer home.Close()
	ns, err := vnetns.New()
	if err != nil {
		return -1, err
	}
	if err := vnetns.Set(home); err != nil {
		return -1, err // the thread is kept, and ends with the program
	}
	runtime.UnlockOSThread()
	return ns, nil
}

// peerFurnish sets up the box's side.
func peerFurnish(ns vnetns.NsHandle, name string, i int) error {
	in, err := netlink.NewHandleAt(ns, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	lo, err := in.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := in.LinkSetUp(lo); err != nil {
		return err
	}
	eth, err := in.LinkByName(name)
	if err != nil {
		return err
	}
	if name != "eth0" {
		if err := in.LinkSetName(eth, "eth0"); err != nil {
			return err
		}
	}
	addr, err := netlink.ParseAddr(boxAddr(i).String())
	if err != nil {
		return err
	}
	if err := in.AddrAdd(eth, addr); err != nil {
		return err
	}
	if err := in.LinkSetUp(eth); err != nil {
		return err
	}
	return in.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.ParseIP(gateway4)})
}
