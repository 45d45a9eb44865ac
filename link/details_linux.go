package link

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Details reads the link with everything the kernel says about it. A link that is
// gone is os.ErrNotExist.
func (l Link) Details(ctx context.Context) (Details, error) {
	d, err := l.details(ctx)
	if err != nil {
		return Details{}, fail.New("link.Details", l.ns, l.subject(), err)
	}
	return d, nil
}

func (l Link) details(ctx context.Context) (Details, error) {
	if err := l.bound(); err != nil {
		return Details{}, err
	}
	conn, err := route(l.ns)
	if err != nil {
		return Details{}, err
	}
	d, _, err := readDetails(ctx, l.ns, conn, "", l.Index)
	return d, err
}

// readDetails asks for one link, by name or by index, and keeps the message.
func readDetails(ctx context.Context, ns *netns.NS, conn *nl.Conn, name string, index int) (d Details, body []byte, err error) {
	req := withStats(getLink(name, index))
	err = conn.Call(ctx, req, func(m nl.Message) error {
		body = bytes.Clone(m.Body)
		return decodeDetails(&d, body)
	})
	d.ns, d.Spec.NS = ns, ns
	return d, body, err
}

// Stats reads what passed the link, in a message of its own, which is the
// cheapest way. A link that is gone is os.ErrNotExist.
func (l Link) Stats(ctx context.Context) (Stats, error) {
	s, err := l.stats(ctx)
	if err != nil {
		return Stats{}, fail.New("link.Stats", l.ns, l.subject(), err)
	}
	return s, nil
}

func (l Link) stats(ctx context.Context) (s Stats, err error) {
	if err := l.bound(); err != nil {
		return s, err
	}
	conn, err := route(l.ns)
	if err != nil {
		return s, err
	}
	const link64 = 1 // IFLA_STATS_LINK_64
	b := binary.NativeEndian.AppendUint32(make([]byte, 4, 12), uint32(l.Index))
	b = binary.NativeEndian.AppendUint32(b, 1<<(link64-1))
	err = conn.Call(ctx, nl.Request{Type: unix.RTM_GETSTATS, Body: b}, func(m nl.Message) error {
		if len(m.Body) < len(b) {
			return errShort
		}
		w := nl.Walk(m.Body[len(b):])
		for w.Next() {
			if w.Type() == link64 {
				s = decodeStats(w.Data())
			}
		}
		return w.Err()
	})
	return s, err
}

// decodeDetails reads the body of an RTM_NEWLINK message. It keeps nothing of b.
func decodeDetails(d *Details, b []byte) error {
	*d = Details{}
	if err := decodeLink(&d.Link, b); err != nil {
		return err
	}
	var st state
	if err := st.parse(b); err != nil {
		return err
	}
	s, in := &d.Spec, &st.at[placeLink]
	o := options{do: decode, in: in}
	s.common(&o)
	s.later(&o)
	s.Index, s.Master, s.Parent, s.Up = d.Index, d.Master, d.ParentIndex, d.Up
	d.Flags = binary.NativeEndian.Uint32(b[8:])
	d.told(&o)
	d.Unknown = o.rest()

	s.Kind = nil
	if d.Kind != "" {
		k := options{do: decode, in: &st.at[placeData]}
		s.Kind = kindOf(d.Kind).options(&k)
		d.Data = k.rest()
	}
	for w := nl.Walk(in[unix.IFLA_LINKINFO]); w.Next(); {
		if w.Type() == unix.IFLA_INFO_SLAVE_KIND {
			d.SlaveKind = w.String()
		}
	}
	port := options{do: decode, in: &st.at[placeSlave]}
	switch d.SlaveKind {
	case "bridge":
		if err := decodePort(&d.Port, st.slaveData); err != nil {
			return err
		}
		s.Port = d.Port.PortOptions
	case "bond":
		s.BondPort = s.BondPort.options(&port)
		fallthrough
	default:
		d.Slave = port.rest()
	}
	for w := nl.Walk(in[unix.IFLA_PROP_LIST]); w.Next(); {
		if w.Type() == unix.IFLA_ALT_IFNAME {
			s.AltNames = append(s.AltNames, w.String())
		}
	}
	s.IPv4.options(&options{do: decode, in: &st.at[placeIPv4]})
	s.IPv6.attributes(&options{do: decode, in: &st.at[placeIPv6]})
	s.IPv6.sysctls(&options{do: decode, in: &st.at[placeConf6]})
	return nil
}

// told reads what the kernel only tells.
func (d *Details) told(o *options) {
	flag(o, unix.IFLA_CARRIER, "", 1, &d.Carrier)
	number(o, unix.IFLA_CARRIER_CHANGES, "", 4, &d.CarrierChanges)
	number(o, unix.IFLA_CARRIER_UP_COUNT, "", 4, &d.CarrierUps)
	number(o, unix.IFLA_CARRIER_DOWN_COUNT, "", 4, &d.CarrierDowns)
	number(o, unix.IFLA_MIN_MTU, "", 4, &d.MinMTU)
	number(o, unix.IFLA_MAX_MTU, "", 4, &d.MaxMTU)
	hardware(o, unix.IFLA_BROADCAST, "", &d.Broadcast)
	hardware(o, unix.IFLA_PERM_ADDRESS, "", &d.PermanentMAC)
	text(o, unix.IFLA_QDISC, "", &d.Qdisc)
	flag(o, unix.IFLA_PROTO_DOWN, "", 1, &d.ProtoDown)
	number(o, unix.IFLA_PROMISCUITY, "", 4, &d.Promiscuity)
	number(o, unix.IFLA_ALLMULTI, "", 4, &d.AllMulticast)
	number(o, unix.IFLA_TSO_MAX_SIZE, "", 4, &d.TSOMaxSize)
	number(o, unix.IFLA_TSO_MAX_SEGS, "", 4, &d.TSOMaxSegs)
	text(o, unix.IFLA_PARENT_DEV_NAME, "", &d.ParentDevice)
	text(o, unix.IFLA_PARENT_DEV_BUS_NAME, "", &d.ParentBus)
	flag(o, netnsImmutable, "", 1, &d.Immovable)

	nested := func(typ uint16, read func(*options)) {
		var in attrs
		o.custom(typ, "", false, nil, func(b []byte) {
			if in.index(b) == nil {
				read(&options{do: decode, in: &in})
			}
		}, nil)
	}
	nested(unix.IFLA_PROTO_DOWN_REASON, func(o *options) { number(o, 2, "", 4, &d.ProtoDownReason) })
	nested(unix.IFLA_XDP, func(o *options) {
		number(o, unix.IFLA_XDP_ATTACHED, "", 1, &d.XDP.Mode)
		number(o, unix.IFLA_XDP_PROG_ID, "", 4, &d.XDP.Program)
		number(o, unix.IFLA_XDP_DRV_PROG_ID, "", 4, &d.XDP.Driver)
		number(o, unix.IFLA_XDP_SKB_PROG_ID, "", 4, &d.XDP.Generic)
		number(o, unix.IFLA_XDP_HW_PROG_ID, "", 4, &d.XDP.Offload)
	})
	o.custom(unix.IFLA_STATS64, "", false, nil, func(b []byte) { d.Stats = decodeStats(b) }, nil)

	// Read elsewhere, or the same once more in an older form.
	for _, t := range [...]uint16{
		unix.IFLA_LINK, unix.IFLA_MASTER, unix.IFLA_OPERSTATE, unix.IFLA_LINKINFO, unix.IFLA_LINK_NETNSID,
		unix.IFLA_AF_SPEC, unix.IFLA_PROP_LIST, unix.IFLA_STATS,
	} {
		o.read.add(t)
	}
}

// decodeStats reads a struct rtnl_link_stats64, as much of it as there is.
func decodeStats(b []byte) (s Stats) {
	for _, p := range [...]*uint64{
		&s.RxPackets, &s.TxPackets, &s.RxBytes, &s.TxBytes, &s.RxErrors, &s.TxErrors, &s.RxDropped, &s.TxDropped,
		&s.Multicast, &s.Collisions,
		&s.RxLengthErrors, &s.RxOverErrors, &s.RxCRCErrors, &s.RxFrameErrors, &s.RxFIFOErrors, &s.RxMissedErrors,
		&s.TxAbortedErrors, &s.TxCarrierErrors, &s.TxFIFOErrors, &s.TxHeartbeatErrors, &s.TxWindowErrors,
		&s.RxCompressed, &s.TxCompressed, &s.RxNoHandler, &s.RxOtherHost,
	} {
		if len(b) < 8 {
			break
		}
		*p, b = binary.NativeEndian.Uint64(b), b[8:]
	}
	return s
}
