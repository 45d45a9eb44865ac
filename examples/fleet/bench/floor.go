//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// batch is how many messages go to the kernel by one system call.
const batch = 256

// encode writes routes as the kernel takes them, by hand.
func encode(routes []route.Route) ([][]netlink.Message, error) {
	var batches [][]netlink.Message
	for i, r := range routes {
		m, err := encodeRoute(r)
		if err != nil {
			return nil, err
		}
		if i%batch == 0 {
			batches = append(batches, nil)
		}
		last := &batches[len(batches)-1]
		if i%batch == batch-1 || i == len(routes)-1 {
			m.Header.Flags |= netlink.Acknowledge // the kernel answers in order, and says of each that fails
		}
		*last = append(*last, m)
	}
	return batches, nil
}

// encodeRoute is rtmsg and its attributes (rtnetlink(7)).
func encodeRoute(r route.Route) (netlink.Message, error) {
	family, kind, scope := unix.AF_INET, unix.RTN_UNICAST, unix.RT_SCOPE_UNIVERSE
	if r.Dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	if r.Type == route.TypeUnreachable {
		kind = unix.RTN_UNREACHABLE
	} else if family == unix.AF_INET {
		scope = unix.RT_SCOPE_LINK
	}
	body := []byte{byte(family), byte(r.Dst.Bits()), 0, 0, unix.RT_TABLE_MAIN, byte(owner), byte(scope), byte(kind), 0, 0, 0, 0}
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, r.Dst.Addr().AsSlice())
	if r.Metric != 0 {
		ae.Uint32(unix.RTA_PRIORITY, r.Metric)
	}
	if r.Dev != 0 {
		ae.Uint32(unix.RTA_OIF, uint32(r.Dev))
	}
	if r.Src.IsValid() {
		ae.Bytes(unix.RTA_PREFSRC, r.Src.AsSlice())
	}
	if r.Metrics != nil {
		ae.Nested(unix.RTA_METRICS, func(ae *netlink.AttributeEncoder) error {
			ae.Uint32(unix.RTAX_MTU, r.Metrics.MTU)
			return nil
		})
	}
	if e, ok := r.Encap.(route.IPEncap); ok {
		const encapIP, ipID, ipDst, ipTTL = 2, 1, 2, 4 // LWTUNNEL_ENCAP_IP, LWTUNNEL_IP_* of linux/lwtunnel.h
		ae.Uint16(unix.RTA_ENCAP_TYPE, encapIP)
		ae.Nested(unix.RTA_ENCAP, func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(ipID, binary.BigEndian.AppendUint64(nil, e.ID))
			ae.Bytes(ipDst, e.Dst.AsSlice())
			ae.Uint8(ipTTL, e.TTL)
			return nil
		})
	}
	attrs, err := ae.Encode()
	return netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWROUTE, Flags: netlink.Request | netlink.Create | netlink.Excl},
		Data:   append(body, attrs...),
	}, err
}

// send gives batches to the kernel by a socket of its own, and reads the answers.
func send(ctx context.Context, ns *netns.NS, batches [][]netlink.Message) error {
	c, err := ns.DialNetlink(ctx, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, messages := range batches {
		if _, err := c.SendMessages(messages); err != nil {
			return err
		}
		if _, err := c.Receive(); err != nil {
			return err
		}
	}
	return nil
}

// dump has the kernel send the fleet's routes, both families, and drops what it sends.
func dump(ctx context.Context, ns *netns.NS) error {
	c, err := ns.DialNetlink(ctx, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetOption(netlink.GetStrictCheck, true); err != nil {
		return err
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		body := []byte{family, 0, 0, 0, 0, byte(owner), 0, 0, 0, 0, 0, 0}
		messages, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request | netlink.Dump}, Data: body,
		})
		if err != nil {
			return err
		}
		if len(messages) == 0 {
			return fmt.Errorf("the dump of family %d is empty", family)
		}
	}
	return nil
}
