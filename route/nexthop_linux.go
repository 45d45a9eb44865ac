package route

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Attributes of next hops (linux/nexthop.h).
const (
	nhaID, nhaGroup, nhaGroupType, nhaBlackhole, nhaOIF, nhaGateway = 1, 2, 3, 4, 5, 6
	nhaEncapType, nhaEncap, nhaGroups, nhaMaster, nhaFDB            = 7, 8, 9, 10, 11
	nhaResGroup, nhaResBucket                                       = 12, 13

	resBuckets, resIdle, resUnbalanced = 1, 2, 3 // NHA_RES_GROUP_*
	bucketIndex, bucketIdle, bucketID  = 1, 2, 3 // NHA_RES_BUCKET_*

	rtmGetBucket = 118 // RTM_GETNEXTHOPBUCKET
	sizeofNhMsg  = 8
)

var nextHopAttrNames = map[uint16]string{
	nhaID: "NHA_ID", nhaGroup: "NHA_GROUP", nhaGroupType: "NHA_GROUP_TYPE", nhaBlackhole: "NHA_BLACKHOLE", nhaOIF: "NHA_OIF",
	nhaGateway: "NHA_GATEWAY", nhaEncapType: "NHA_ENCAP_TYPE", nhaEncap: "NHA_ENCAP", nhaGroups: "NHA_GROUPS",
	nhaMaster: "NHA_MASTER", nhaFDB: "NHA_FDB", nhaResGroup: "NHA_RES_GROUP",
}

func nextHopNames(path []uint16) string { return nextHopAttrNames[path[0]] }

// AddNextHops adds objects to the namespace in the order given, all of them or none. A
// group must follow its members. An id that is taken is os.ErrExist. A missing link or
// member is EINVAL, and the error has the kernel's message.
func AddNextHops(ctx context.Context, ns *netns.NS, hops ...NextHop) error {
	const op = "route.AddNextHops"
	many, err := execNextHops(ctx, op, ns, hops, verbAdd)
	if many == nil {
		return err
	}
	took := undone(many, len(hops))
	return undo(ctx, op, ns, err, func(ctx context.Context) error {
		conn, err := open(ns)
		if err != nil {
			return err
		}
		return sendAll(ctx, conn, len(took), true, func(b []byte, i int) nl.Request { return deleteNextHop(b, hops[took[i]].ID) }, nil)
	})
}

// AddNextHop adds one object and returns it as the kernel holds it. Without an ID the
// kernel chooses one, the next free one above the last that it chose.
func AddNextHop(ctx context.Context, ns *netns.NS, n NextHop) (NextHop, error) {
	made, err := addNextHop(ctx, ns, &n)
	if err != nil {
		return NextHop{}, fail.New("route.AddNextHop", ns, "next hop "+n.String(), err)
	}
	return made, nil
}

func addNextHop(ctx context.Context, ns *netns.NS, n *NextHop) (made NextHop, err error) {
	if err := n.check(); err != nil {
		return made, err
	}
	conn, err := open(ns)
	if err != nil {
		return made, err
	}
	req := nl.Request{Type: unix.RTM_NEWNEXTHOP, Flags: verbFlags[verbAdd] | unix.NLM_F_ECHO, Body: n.append(nil), Names: nextHopNames}
	err = conn.Call(ctx, req, func(m nl.Message) error { return decodeNextHop(m.Body, &made) })
	var refused *nl.Error
	if errors.As(err, &refused) {
		err = inWords("next hop", refused)
	}
	return made, err
}

// ReplaceNextHops adds objects, or changes existing ones with the same ids. Routes that
// refer to them follow at once. A plain object cannot become a group, nor a group a plain
// object (EINVAL).
//
// Objects are sent a hundred at a time. If one is refused, those sent with it are still
// made; the error names each that was not.
func ReplaceNextHops(ctx context.Context, ns *netns.NS, hops ...NextHop) error {
	_, err := execNextHops(ctx, "route.ReplaceNextHops", ns, hops, verbReplace)
	return err
}

// DeleteNextHops deletes objects and the routes that refer to them. A group loses the
// object as a member, and is deleted with its last member. A missing id is os.ErrNotExist.
// Objects are sent a hundred at a time. If one cannot be deleted, those sent with it still
// are.
func DeleteNextHops(ctx context.Context, ns *netns.NS, ids ...uint32) error {
	const op = "route.DeleteNextHops"
	items := make([]idText, len(ids))
	for i, id := range ids {
		if items[i] = idText(id); id == 0 {
			return fail.New(op, ns, "next hop 0", refuse.Input("there is no id 0"))
		}
	}
	_, err := exec(ctx, op, ns, "next hop", items, func(b []byte, i int) nl.Request { return deleteNextHop(b, ids[i]) })
	return err
}

type idText uint32

func (i idText) String() string { return strconv.FormatUint(uint64(i), 10) }

func execNextHops(ctx context.Context, op string, ns *netns.NS, hops []NextHop, v verb) (*nl.ExecError, error) {
	for i := range hops {
		err := hops[i].check()
		if hops[i].ID == 0 {
			err = refuse.Input("the next hop has no id")
		}
		if err != nil {
			return nil, fail.New(op, ns, "next hop "+hops[i].String(), err)
		}
	}
	return exec(ctx, op, ns, "next hop", hops, func(b []byte, i int) nl.Request {
		return nl.Request{Type: unix.RTM_NEWNEXTHOP, Flags: verbFlags[v], Body: hops[i].append(b), Names: nextHopNames}
	})
}

// GetNextHop returns the object with an id. A missing one is os.ErrNotExist.
func GetNextHop(ctx context.Context, ns *netns.NS, id uint32) (NextHop, error) {
	n, err := getNextHop(ctx, ns, id)
	if err != nil {
		return NextHop{}, fail.New("route.GetNextHop", ns, "next hop "+idText(id).String(), err)
	}
	return n, nil
}

func getNextHop(ctx context.Context, ns *netns.NS, id uint32) (n NextHop, err error) {
	if id == 0 {
		return n, refuse.Input("there is no id 0")
	}
	conn, err := open(ns)
	if err != nil {
		return n, err
	}
	req := nl.Request{Type: unix.RTM_GETNEXTHOP, Body: nl.AppendU32(nhHeader(nil, 0, 0, 0), nhaID, id), Names: nextHopNames}
	err = conn.Call(ctx, req, func(m nl.Message) error { return decodeNextHop(m.Body, &n) })
	var refused *nl.Error
	if errors.As(err, &refused) {
		err = inWords("next hop", refused)
	}
	return n, err
}

// ListNextHops returns the objects that the filter selects, by id. The list is complete: if
// objects change during the dump, it is read again, up to 50 times, and then the error is
// [ErrInterrupted].
func ListNextHops(ctx context.Context, ns *netns.NS, f NextHopFilter) ([]NextHop, error) {
	hops, err := listNextHops(ctx, ns, f)
	if err != nil {
		return nil, fail.New("route.ListNextHops", ns, "next hops", err)
	}
	return hops, nil
}

func listNextHops(ctx context.Context, ns *netns.NS, f NextHopFilter) (hops []NextHop, err error) {
	err = errors.Join(checkFamily(f.Family), f.Protocol.check())
	if err == nil && (!isIndex(f.Dev) || !isIndex(f.Master)) {
		err = refuse.Input("dev %d or master %d is not the index of a link", f.Dev, f.Master)
	}
	if err != nil {
		return nil, err
	}
	b := nhHeader(nil, afNumber(f.Family), 0, 0)
	b = appendNonZero(b, nhaOIF, uint32(f.Dev))
	b = appendNonZero(b, nhaMaster, uint32(f.Master))
	if f.Groups {
		b = nl.AppendFlag(b, nhaGroups)
	}
	if f.FDB {
		b = nl.AppendFlag(b, nhaFDB)
	}
	err = dumpNextHops(ctx, ns, nl.Request{Type: unix.RTM_GETNEXTHOP, Body: b, Names: nextHopNames}, func() { hops = nil }, func(m nl.Message) error {
		var n NextHop
		err := decodeNextHop(m.Body, &n)
		if err == nil && f.match(&n) {
			hops = append(hops, n)
		}
		return err
	})
	return hops, err
}

func (f *NextHopFilter) match(n *NextHop) bool {
	return (f.Family == 0 || f.Family == n.Family) && (f.Dev == 0 || f.Dev == n.Dev) && (!f.Groups || len(n.Group) > 0) &&
		(!f.FDB || n.FDB) && (f.Protocol == 0 || f.Protocol == n.Protocol)
}

// ListBuckets returns the buckets of a resilient group, in order (>= 5.13). A missing group is
// os.ErrNotExist, a group that is not resilient EINVAL.
func ListBuckets(ctx context.Context, ns *netns.NS, id uint32) (buckets []Bucket, err error) {
	if id == 0 {
		err = refuse.Input("there is no id 0")
	}
	if err == nil {
		req := nl.Request{Type: rtmGetBucket, Body: nl.AppendU32(nhHeader(nil, 0, 0, 0), nhaID, id), Names: nextHopNames}
		err = dumpNextHops(ctx, ns, req, func() { buckets = nil }, func(m nl.Message) error {
			bucket, err := decodeBucket(m.Body)
			buckets = append(buckets, bucket)
			return err
		})
	}
	if err != nil {
		return nil, fail.New("route.ListBuckets", ns, "next hop "+idText(id).String(), err)
	}
	return buckets, nil
}

func dumpNextHops(ctx context.Context, ns *netns.NS, req nl.Request, reset func(), each func(nl.Message) error) error {
	conn, err := open(ns)
	if err != nil {
		return err
	}
	return conn.Dump(ctx, req, reset, each)
}

func afNumber(f Family) uint8 {
	switch f {
	case IPv4:
		return unix.AF_INET
	case IPv6:
		return unix.AF_INET6
	}
	return unix.AF_UNSPEC
}

// nhHeader appends a struct nhmsg.
func nhHeader(b []byte, af uint8, protocol Protocol, flags uint32) []byte {
	return binary.NativeEndian.AppendUint32(append(b, af, 0, uint8(protocol), 0), flags)
}

func deleteNextHop(b []byte, id uint32) nl.Request {
	return nl.Request{Type: unix.RTM_DELNEXTHOP, Body: nl.AppendU32(nhHeader(b, 0, 0, 0), nhaID, id), Names: nextHopNames}
}

// append builds the body that adds or replaces an object.
func (n *NextHop) append(b []byte) []byte {
	d := n.normal()
	var flags uint32
	if n.OnLink {
		flags = unix.RTNH_F_ONLINK
	}
	b = nhHeader(b, afNumber(d.Family), d.Protocol, flags)
	b = appendNonZero(b, nhaID, n.ID)
	if len(n.Group) > 0 {
		raw := make([]byte, 0, 8*len(n.Group))
		for _, m := range n.Group { // struct nexthop_grp: the weight less 1 in 8 bits
			raw = append(binary.NativeEndian.AppendUint32(raw, m.ID), uint8(m.Weight-1), 0, 0, 0)
		}
		b = nl.AppendAttr(b, nhaGroup, raw)
	}
	if r := n.Resilient; r != nil {
		b = nl.AppendU16(b, nhaGroupType, 1) // NEXTHOP_GRP_TYPE_RES
		var at int
		b, at = nl.Begin(b, nhaResGroup)
		b = nl.AppendU16(b, resBuckets, r.Buckets)
		if r.IdleTimer != nil {
			b = nl.AppendU32(b, resIdle, uint32(*r.IdleTimer/tick))
		}
		if r.UnbalancedTimer != nil {
			b = nl.AppendU32(b, resUnbalanced, uint32(*r.UnbalancedTimer/tick))
		}
		nl.End(b, at)
	}
	if n.Blackhole {
		b = nl.AppendFlag(b, nhaBlackhole)
	}
	if n.FDB {
		b = nl.AppendFlag(b, nhaFDB)
	}
	b = appendNonZero(b, nhaOIF, uint32(n.Dev))
	if n.Via.IsValid() {
		b = appendAddr(b, nhaGateway, n.Via)
	}
	return appendEncap(b, nhaEncapType, nhaEncap, n.Encap)
}

var errNoNextHop = errors.New("malformed reply: no next hop in it")

// decodeNextHop reads the body of an RTM_NEWNEXTHOP or RTM_DELNEXTHOP message.
func decodeNextHop(b []byte, n *NextHop) error {
	if len(b) < sizeofNhMsg {
		return errNoNextHop
	}
	*n = NextHop{Protocol: protocolOf(b[2])}
	switch b[0] {
	case unix.AF_INET:
		n.Family = IPv4
	case unix.AF_INET6:
		n.Family = IPv6
	}
	flags := binary.NativeEndian.Uint32(b[4:])
	n.OnLink = flags&unix.RTNH_F_ONLINK != 0
	n.Flags = Flags(flags &^ unix.RTNH_F_ONLINK)
	var kind uint16
	var encap []byte
	w := nl.Walk(b[sizeofNhMsg:])
	for w.Next() {
		switch w.Type() {
		case nhaID:
			n.ID = w.U32()
		case nhaGroup:
			for d := w.Data(); len(d) >= 8; d = d[8:] {
				// The high byte of a weight came with 6.12.
				weight := int(d[4]) | int(d[5])<<8
				n.Group = append(n.Group, Member{ID: binary.NativeEndian.Uint32(d), Weight: weight + 1})
			}
		case nhaResGroup:
			r, err := readResilient(w.Nested())
			if err != nil {
				return err
			}
			n.Resilient = r
		case nhaBlackhole:
			n.Blackhole = true
		case nhaFDB:
			n.FDB = true
		case nhaOIF:
			n.Dev = int(w.U32())
		case nhaGateway:
			n.Via = addrOf(b[0], w.Data())
		case nhaEncapType:
			kind = w.U16()
		case nhaEncap:
			encap = w.Data()
		}
	}
	if kind != 0 {
		n.Encap = readEncap(kind, encap)
	}
	if n.Blackhole {
		n.Via, n.Dev = netip.Addr{}, 0 // the kernel says lo
	}
	return w.Err()
}

func readResilient(w nl.Walker) (*Resilient, error) {
	var r Resilient
	for w.Next() {
		switch w.Type() {
		case resBuckets:
			r.Buckets = w.U16()
		case resIdle:
			r.IdleTimer = new(time.Duration(w.U32()) * tick)
		case resUnbalanced:
			r.UnbalancedTimer = new(time.Duration(w.U32()) * tick)
		}
	}
	return &r, w.Err()
}

func decodeBucket(b []byte) (bucket Bucket, err error) {
	if len(b) < sizeofNhMsg {
		return bucket, errNoNextHop
	}
	w := nl.Walk(b[sizeofNhMsg:])
	for w.Next() {
		if w.Type() != nhaResBucket {
			continue
		}
		in := w.Nested()
		for in.Next() {
			switch in.Type() {
			case bucketIndex:
				bucket.Index = in.U16()
			case bucketIdle:
				bucket.Idle = time.Duration(in.U64()) * tick
			case bucketID:
				bucket.Member = in.U32()
			}
		}
		if err := in.Err(); err != nil {
			return bucket, err
		}
	}
	return bucket, w.Err()
}
