//go:build linux

package main

import (
	"context"
	"net"
	"slices"

	"github.com/boxwire/boxwire/link"
)

// bindMAC lets frames of one source address into the bridge by the port, and no others
// (macspoofchk): the port is locked, and its only entry of the forwarding database
// is the container's. Both go with the port. The entry stays when another port
// claims the address.
//
// A policy's guard also knows IP addresses, and needs some. This is for frames of
// any protocol, in any VLAN, on a bridge that the host has no part in.
func (c *config) bindMAC(ctx context.Context, port link.Link, mac net.HardwareAddr) error {
	if !c.MacSpoofChk {
		return nil
	}
	return failed("binding the container's port to its hardware address", port.AddFDBEntries(ctx, boundEntry(mac)))
}

func boundEntry(mac net.HardwareAddr) link.FDBEntry {
	return link.FDBEntry{MAC: mac, Type: link.FDBStatic, Flags: link.FDBSticky}
}

// isBound says whether the port has the entry of bindMAC, and no other that lets
// frames in.
func isBound(ctx context.Context, port link.Link, mac net.HardwareAddr) (bool, error) {
	all, err := link.ListFDB(ctx, port.NS(), link.FDBFilter{Link: port.Ref()})
	if err != nil {
		return false, err
	}
	bound := false
	for _, e := range all {
		if e.Self || e.Type == link.FDBLocal {
			continue
		}
		if !slices.Equal(e.MAC, mac) {
			return false, nil
		}
		bound = bound || e.Flags&link.FDBSticky != 0
	}
	return bound, nil
}
