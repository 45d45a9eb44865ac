package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Details reads everything that the kernel reports about the link. A link that is
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

// readDetails asks for one link, by name or by index, and returns its details and
// the message.
func readDetails(ctx context.Context, ns *netns.NS, conn *nl.Conn, name string, index int) (d Details, body []byte, err error) {
	req := withStats(getLink(name, index))
	err = conn.Call(ctx, req, func(m nl.Message) error {
		body = bytes.Clone(m.Body)
		return decodeDetails(&d, body)
	})
	d.ns, d.Spec.NS = ns, ns
	if d.Master != 0 {
		d.Spec.Master.ns = ns
	}
	if d.ParentIndex != 0 && d.LinkNSID < 0 {
		d.Spec.Parent.ns = ns
	}
	return d, body, err
}

// Stats reads the link's counters. It is cheaper than Details. A link that is gone
// is os.ErrNotExist.
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
	set := s.settings()
	read := in.decode(slices.Concat(set.common(), set.alias(), d.reported(), readElsewhere))
	d.Unknown = in.rest(&read)
	s.Index, s.Master.Index, s.Parent.Index, s.Up = d.Index, d.Master, d.ParentIndex, d.Up
	d.Flags = binary.NativeEndian.Uint32(b[8:])

	s.Kind = nil
	if d.Kind != "" {
		s.Kind, d.Data = decodeKind(d.Kind, &st.at[placeData])
	}
	for w := nl.Walk(in[unix.IFLA_LINKINFO]); w.Next(); {
		if w.Type() == unix.IFLA_INFO_SLAVE_KIND {
			d.SlaveKind = w.String()
		}
	}
	slave := &st.at[placeSlave]
	switch d.SlaveKind {
	case "bridge":
		if err := decodePort(&d.Port, st.slaveData); err != nil {
			return err
		}
		s.Port = d.Port.PortOptions
	case "bond":
		read := slave.decode(s.BondPort.fields())
		d.Slave = slave.rest(&read)
	default:
		d.Slave = slave.rest(&attrSet{})
	}
	for w := nl.Walk(in[unix.IFLA_PROP_LIST]); w.Next(); {
		if w.Type() == unix.IFLA_ALT_IFNAME {
			s.AltNames = append(s.AltNames, w.String())
		}
	}
	st.at[placeIPv4].decode(s.IPv4.fields())
	st.at[placeIPv6].decode(s.IPv6.attributes())
	st.at[placeConf6].decode(s.IPv6.sysctls())
	return nil
}

// reported are the fields that the kernel reports and does not take.
func (d *Details) reported() []field {
	return []field{
		{unix.IFLA_CARRIER, "", &d.Carrier, u8},
		{unix.IFLA_CARRIER_CHANGES, "", &d.CarrierChanges, u32},
		{unix.IFLA_CARRIER_UP_COUNT, "", &d.CarrierUps, u32},
		{unix.IFLA_CARRIER_DOWN_COUNT, "", &d.CarrierDowns, u32},
		{unix.IFLA_MIN_MTU, "", &d.MinMTU, u32},
		{unix.IFLA_MAX_MTU, "", &d.MaxMTU, u32},
		{unix.IFLA_BROADCAST, "", &d.Broadcast, hardware{}},
		{unix.IFLA_PERM_ADDRESS, "", &d.PermanentMAC, hardware{}},
		{unix.IFLA_QDISC, "", &d.Qdisc, text{}},
		{unix.IFLA_PROTO_DOWN, "", &d.ProtoDown, u8},
		{unix.IFLA_PROTO_DOWN_REASON, "", []field{{2, "", &d.ProtoDownReason, u32}}, group{}},
		{unix.IFLA_PROMISCUITY, "", &d.Promiscuity, u32},
		{unix.IFLA_ALLMULTI, "", &d.AllMulticast, u32},
		{unix.IFLA_TSO_MAX_SIZE, "", &d.TSOMaxSize, u32},
		{unix.IFLA_TSO_MAX_SEGS, "", &d.TSOMaxSegs, u32},
		{unix.IFLA_PARENT_DEV_NAME, "", &d.ParentDevice, text{}},
		{unix.IFLA_PARENT_DEV_BUS_NAME, "", &d.ParentBus, text{}},
		{netnsImmutable, "", &d.Immovable, u8},
		{unix.IFLA_XDP, "", []field{
			{unix.IFLA_XDP_ATTACHED, "", &d.XDP.Mode, u8},
			{unix.IFLA_XDP_PROG_ID, "", &d.XDP.Program, u32},
			{unix.IFLA_XDP_DRV_PROG_ID, "", &d.XDP.Driver, u32},
			{unix.IFLA_XDP_SKB_PROG_ID, "", &d.XDP.Generic, u32},
			{unix.IFLA_XDP_HW_PROG_ID, "", &d.XDP.Offload, u32},
		}, group{}},
		{unix.IFLA_STATS64, "", &d.Stats, stats64{}},
	}
}

// readElsewhere are attributes that are read elsewhere, or the same once more in an
// older form.
var readElsewhere = []field{
	{unix.IFLA_LINK, "", nil, skipped{}}, {unix.IFLA_MASTER, "", nil, skipped{}}, {unix.IFLA_OPERSTATE, "", nil, skipped{}},
	{unix.IFLA_LINKINFO, "", nil, skipped{}}, {unix.IFLA_LINK_NETNSID, "", nil, skipped{}}, {unix.IFLA_AF_SPEC, "", nil, skipped{}},
	{unix.IFLA_PROP_LIST, "", nil, skipped{}}, {unix.IFLA_STATS, "", nil, skipped{}},
}

// stats64 is a struct rtnl_link_stats64.
type stats64 struct{ readOnly }

func (stats64) parse(b []byte, v any, _ *store) { *v.(*Stats) = decodeStats(b) }

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
