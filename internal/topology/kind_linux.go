package topology

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Attributes of kinds (linux/if_link.h, linux/if_tunnel.h) that golang.org/x/sys/unix lacks.
const (
	vxlanID, vxlanGroup, vxlanGroup6 = 1, 2, 16
	greRemote, iptunRemote           = 7, 3
	macvlanMode                      = 1
	vrfTable                         = 1
)

// A fact is an attribute of a kind in the words of ip-link(8).
type fact struct {
	attr uint16
	word string
	text func(nl.Walker) string
}

// facts are what sets links of a kind apart.
var facts = map[string][]fact{
	"vlan":    {{unix.IFLA_VLAN_ID, "id", number16}},
	"vxlan":   {{vxlanID, "id", number32}, {vxlanGroup, "remote", addr}, {vxlanGroup6, "remote", addr}},
	"geneve":  {{unix.IFLA_GENEVE_ID, "id", number32}, {unix.IFLA_GENEVE_REMOTE, "remote", addr}, {unix.IFLA_GENEVE_REMOTE6, "remote", addr}},
	"gre":     {{greRemote, "remote", addr}},
	"gretap":  {{greRemote, "remote", addr}},
	"ip6gre":  {{greRemote, "remote", addr}},
	"ipip":    {{iptunRemote, "remote", addr}},
	"sit":     {{iptunRemote, "remote", addr}},
	"ip6tnl":  {{iptunRemote, "remote", addr}},
	"macvlan": {{macvlanMode, "mode", mode}},
	"macvtap": {{macvlanMode, "mode", mode}},
	"vrf":     {{vrfTable, "table", number32}},
}

func number16(w nl.Walker) string { return strconv.Itoa(int(w.U16())) }
func number32(w nl.Walker) string { return strconv.Itoa(int(w.U32())) }

// addr is an address, or "" for the unspecified one.
func addr(w nl.Walker) string {
	if a, ok := netip.AddrFromSlice(w.Data()); ok && !a.IsUnspecified() {
		return a.String()
	}
	return ""
}

// mode is a mode of macvlan (linux/if_link.h, enum macvlan_mode).
func mode(w nl.Walker) string {
	return map[uint32]string{1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}[w.U32()]
}

// detail is what sets a link apart from others of its kind.
func detail(l *rtnl.Link) (text string) {
	for _, f := range facts[l.Kind] {
		for w := nl.Walk(l.Data); w.Next(); {
			if w.Type() != f.attr {
				continue
			}
			if value := f.text(w); value != "" {
				text = joinedBy(" ", text, f.word, value)
			}
		}
	}
	return text
}

// filtersVLANs reports whether a link is a bridge that filters VLANs.
func filtersVLANs(l *rtnl.Link) bool {
	for w := nl.Walk(l.Data); l.Kind == "bridge" && w.Next(); {
		if w.Type() == unix.IFLA_BR_VLAN_FILTERING {
			return w.U8() != 0
		}
	}
	return false
}

// readVLANs enters the VLANs that the ports of bridges carry.
func readVLANs(ctx context.Context, ns *netns.NS, links map[int]*Link) error {
	c, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	const compressed = 4 // RTEXT_FILTER_BRVLAN_COMPRESSED, linux/rtnetlink.h
	body := make([]byte, unix.SizeofIfInfomsg)
	body[0] = unix.AF_BRIDGE
	body = nl.AppendU32(body, unix.IFLA_EXT_MASK, compressed)
	again := func() {
		for _, l := range links {
			l.VLANs = nil
		}
	}
	return c.Dump(ctx, nl.Request{Type: unix.RTM_GETLINK, Body: body}, again, func(m nl.Message) error {
		if len(m.Body) < unix.SizeofIfInfomsg {
			return errors.New("the kernel's message about a port is too short")
		}
		l := links[int(int32(binary.NativeEndian.Uint32(m.Body[4:])))]
		for w := nl.Walk(m.Body[unix.SizeofIfInfomsg:]); l != nil && w.Next(); {
			if w.Type() == unix.IFLA_AF_SPEC {
				l.VLANs = append(l.VLANs, vlans(w.Nested())...)
			}
		}
		return nil
	})
}

// vlans are those of one port: numbers and ranges.
func vlans(w nl.Walker) (all []string) {
	const (
		info       = 2 // IFLA_BRIDGE_VLAN_INFO, linux/if_bridge.h: struct bridge_vlan_info
		rangeBegin = 1 << 3
		rangeEnd   = 1 << 4
	)
	begin := uint16(0)
	for w.Next() {
		if w.Type() != info || len(w.Data()) < 4 {
			continue
		}
		flags, id := binary.NativeEndian.Uint16(w.Data()), binary.NativeEndian.Uint16(w.Data()[2:])
		switch {
		case flags&rangeBegin != 0:
			begin = id
		case flags&rangeEnd != 0:
			all = append(all, fmt.Sprintf("%d-%d", begin, id))
		default:
			all = append(all, strconv.Itoa(int(id)))
		}
	}
	return all
}
