package rtnl

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// Link is a link.
type Link struct {
	Index    int
	Name     string
	Kind     string // "veth", "bridge", ...; hardware has none
	Flags    uint32 // unix.IFF_UP, ...
	State    rtnetlink.OperationalState
	MTU      uint32
	MAC      net.HardwareAddr
	Master   int    // the index of the bridge, bond, ... that it is a port of, or 0
	PortKind string // that of its master, if it is a port
	Isolated bool   // a bridge port that does not reach other isolated ones
	Hairpin  bool   // a bridge port by which a packet may leave that came by it
	Linked   int    // the index of a pair's other end, or of the link that this one lies on; 0 for none
	PeerNSID *int32 // the id of the namespace that Linked is in, if that is another one
	Data     []byte // IFLA_INFO_DATA: attributes of the kind
	IPv4     DevConf
}

// DevConf are the per-link settings of IPv4 (linux/ip.h: IPV4_DEVCONF_*); it is nil for
// a link that has none.
type DevConf []uint32

// The numbers of some settings.
const (
	Forwarding    = 1
	RouteLocalnet = 26
)

// On reports whether a setting is on.
func (c DevConf) On(setting int) bool { return setting <= len(c) && c[setting-1] != 0 }

// IsLoopback reports whether the link is lo.
func (l *Link) IsLoopback() bool { return l.Flags&unix.IFF_LOOPBACK != 0 }

// IsPort reports whether the link receives no IP packets itself: it is a port of a
// bridge, bond or team, or an ifb, whose packets have come in by another link.
func (l *Link) IsPort() bool {
	switch l.PortKind {
	case "bridge", "bond", "team":
		return true
	}
	return l.Kind == "ifb"
}

// skipStats leaves the counters out of replies (linux/rtnetlink.h:
// RTEXT_FILTER_SKIP_STATS).
const skipStats = 8

// Links reads all links of the namespace.
func Links(ctx context.Context, ns nsconn.NS) ([]Link, error) {
	body := nl.AppendU32(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_EXT_MASK, skipStats)
	all, err := dump(ctx, ns, unix.RTM_GETLINK, body, DecodeLink)
	if err != nil {
		return nil, fmt.Errorf("reading the links: %w", err)
	}
	return all, nil
}

// LinkByName reads the link of a name. A missing one is os.ErrNotExist.
func LinkByName(ctx context.Context, ns nsconn.NS, name string) (Link, error) {
	body := nl.AppendString(make([]byte, unix.SizeofIfInfomsg, 64), unix.IFLA_IFNAME, name)
	return get(ctx, ns, unix.RTM_GETLINK, nl.AppendU32(body, unix.IFLA_EXT_MASK, skipStats), DecodeLink)
}

// LinkByIndex reads the link of an index. A missing one is os.ErrNotExist.
func LinkByIndex(ctx context.Context, ns nsconn.NS, index int) (Link, error) {
	body := make([]byte, unix.SizeofIfInfomsg, 64)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	return get(ctx, ns, unix.RTM_GETLINK, nl.AppendU32(body, unix.IFLA_EXT_MASK, skipStats), DecodeLink)
}

var linkSizes = sizes{unix.IFLA_IFNAME: 0, unix.IFLA_MTU: 4, unix.IFLA_MASTER: 4, unix.IFLA_OPERSTATE: 1}

// DecodeLink decodes the body of a RTM_NEWLINK or RTM_DELLINK message.
func DecodeLink(body []byte) (l Link, err error) {
	var m rtnetlink.LinkMessage
	var inner error
	err = decode(&m, body, unix.SizeofIfInfomsg, linkSizes, func(w *nl.Walker) {
		switch w.Type() {
		case unix.IFLA_ADDRESS: // rtnetlink refuses some lengths
			l.MAC = append(net.HardwareAddr(nil), w.Data()...)
		case unix.IFLA_LINK:
			l.Linked = int(int32(w.U32()))
		case unix.IFLA_LINK_NETNSID:
			id := int32(w.U32())
			l.PeerNSID = &id
		case unix.IFLA_LINKINFO:
			inner = errors.Join(inner, l.decodeInfo(w.Nested()))
		case unix.IFLA_AF_SPEC:
			inner = errors.Join(inner, l.decodeFamilies(w.Nested()))
		}
	})
	if err = errors.Join(err, inner); err != nil {
		return l, err
	}
	l.Index, l.Flags = int(int32(m.Index)), m.Flags
	if a := m.Attributes; a != nil {
		l.Name, l.MTU, l.State = a.Name, a.MTU, a.OperationalState
		if a.Master != nil {
			l.Master = int(*a.Master)
		}
	}
	return l, nil
}

// decodeInfo decodes IFLA_LINKINFO.
func (l *Link) decodeInfo(w nl.Walker) error {
	var port nl.Walker
	for w.Next() {
		switch w.Type() {
		case unix.IFLA_INFO_KIND:
			l.Kind = w.String()
		case unix.IFLA_INFO_DATA:
			l.Data = bytes.Clone(w.Data())
		case unix.IFLA_INFO_SLAVE_KIND:
			l.PortKind = w.String()
		case unix.IFLA_INFO_SLAVE_DATA:
			port = w.Nested()
		}
	}
	for l.PortKind == "bridge" && port.Next() {
		switch port.Type() {
		case unix.IFLA_BRPORT_ISOLATED:
			l.Isolated = port.U8() != 0
		case unix.IFLA_BRPORT_MODE:
			l.Hairpin = port.U8() != 0
		}
	}
	return errors.Join(w.Err(), port.Err())
}

// decodeFamilies decodes IFLA_AF_SPEC: of IPv4, IFLA_INET_CONF has 32 bits a setting,
// the first of number 1.
func (l *Link) decodeFamilies(w nl.Walker) error {
	for w.Next() {
		if w.Type() != unix.AF_INET {
			continue
		}
		inet := w.Nested()
		for inet.Next() {
			if inet.Type() != unix.IFLA_INET_CONF {
				continue
			}
			l.IPv4 = DevConf{}
			for d := inet.Data(); len(d) >= 4; d = d[4:] {
				l.IPv4 = append(l.IPv4, binary.NativeEndian.Uint32(d))
			}
		}
		if err := inet.Err(); err != nil {
			return err
		}
	}
	return w.Err()
}
