//go:build linux

package main

import (
	"context"
	"encoding/binary"

	"github.com/boxwire/boxwire/link"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// isPromiscuous says whether a program has asked for a link to receive every frame.
func isPromiscuous(ctx context.Context, l link.Link) (bool, error) {
	d, err := l.Details(ctx)
	return d.Flags&unix.IFF_PROMISC != 0, err
}

// setPromiscuous has a link receive every frame, or no longer.
func setPromiscuous(ctx context.Context, l link.Link, on bool) error {
	conn, err := l.NS().DialNetlink(ctx, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	msg := make([]byte, unix.SizeofIfInfomsg) // struct ifinfomsg: index, flags, change
	binary.NativeEndian.PutUint32(msg[4:], uint32(l.Index))
	if on {
		binary.NativeEndian.PutUint32(msg[8:], unix.IFF_PROMISC)
	}
	binary.NativeEndian.PutUint32(msg[12:], unix.IFF_PROMISC)
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWLINK, Flags: netlink.Request | netlink.Acknowledge},
		Data:   msg,
	})
	return err
}
