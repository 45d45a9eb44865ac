package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ListDenied lists what policies denied in the last hour, the latest first. The kernel keeps at most
// 8192 kinds of packets for each family and direction; what is denied beyond that is counted
// ([NAT.ListPolicies]), and not recorded. A table that is rebuilt begins with an empty record.
//
// Errors: os.ErrNotExist for a table that is gone.
func (n *NAT) ListDenied(ctx context.Context) ([]Denial, error) {
	const op = "nat.ListDenied"
	c, err := n.conn()
	if err != nil {
		return nil, n.fail(op, n.String(), err)
	}
	all, err := n.readDenied(ctx, c)
	return all, n.fail(op, n.String(), err)
}

func (n *NAT) readDenied(ctx context.Context, c nft.Conn) (all []Denial, err error) {
	if err := n.gone(ctx, c); err != nil {
		return nil, err
	}
	items, err := n.readPart(ctx, c, func(f *family46) []string { return []string{f.out.tried, f.policySets.in.tried} })
	for _, it := range items {
		if d, ok := decodeDenial(it); ok {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b Denial) int { return int(a.Ago - b.Ago) })
	return all, err
}

// decodeDenial returns the denial of an element of a record.
func decodeDenial(it item) (d Denial, ok bool) {
	f, e := familyOfSet(it.set), it.elem
	n := int(f.size())
	if len(e.Key) != 2*n+8 {
		return d, false
	}
	d.Ingress = it.set == f.policySets.in.tried
	d.Src, _ = netip.AddrFromSlice(e.Key[:n])
	d.Dst, _ = netip.AddrFromSlice(e.Key[n : 2*n])
	d.Proto = Proto(e.Key[2*n])
	d.Port = binary.BigEndian.Uint16(e.Key[2*n+4:])
	d.Packets = e.Packets
	if e.Expires > 0 {
		d.Ago = max(0, triedFor-e.Expires)
	}
	return d, true
}

// WatchDenied yields the records of [NAT.ListDenied], netns.EventSynced, and then each packet that a
// policy denies, at most 200 a second for each direction. It ends with the context, whose error is
// the last that it yields.
//
// Packets are reported to one watcher in a namespace (NFLOG, linux/netfilter/nfnetlink_log.h,
// group 45100). Those of other tables' policies are left out.
//
// Errors: os.ErrExist where another program watches; os.ErrNotExist for a table that is gone;
// errors.ErrUnsupported for a kernel without nfnetlink_log; os.ErrPermission without CAP_NET_ADMIN
// over the namespace.
func (n *NAT) WatchDenied(ctx context.Context) iter.Seq2[DenialEvent, error] {
	return func(yield func(DenialEvent, error) bool) {
		w := denialWatch{n: n, yield: yield}
		if err := w.run(ctx); err != nil && !w.stopped {
			yield(DenialEvent{}, n.fail("nat.WatchDenied", n.String(), err))
		}
	}
}

// denialWatch is one watch.
type denialWatch struct {
	n       *NAT
	yield   func(DenialEvent, error) bool
	stopped bool // by yield
}

func (w *denialWatch) say(kind netns.EventKind, d Denial) bool {
	w.stopped = w.stopped || !w.yield(DenialEvent{Kind: kind, Denial: d}, nil)
	return !w.stopped
}

func (w *denialWatch) run(ctx context.Context) error {
	c, err := w.n.conn()
	if err != nil {
		return err
	}
	conn, err := w.n.ns.DialNetlink(ctx, unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := watchLog(conn); err != nil {
		return err
	}
	for resync := false; ; resync = true {
		if resync && !w.say(netns.EventResync, Denial{}) {
			return nil
		}
		present, err := w.n.readDenied(ctx, c)
		if err != nil {
			return err
		}
		for _, d := range present {
			if !w.say(netns.EventPresent, d) {
				return nil
			}
		}
		if !w.say(netns.EventSynced, Denial{}) {
			return nil
		}
		if err := w.packets(ctx, conn); !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
}

// packets yields packets until an error, or until yield stops.
func (w *denialWatch) packets(ctx context.Context, conn *netlink.Conn) error {
	for {
		msgs, err := conn.Receive()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if d, ok := decodeLogged(m.Data, w.n.table); ok && !w.say(netns.EventChanged, d) {
				return nil
			}
		}
	}
}

// Messages and attributes of linux/netfilter/nfnetlink_log.h.
const (
	logConfig      = unix.NFNL_SUBSYS_ULOG<<8 | 1 // NFULNL_MSG_CONFIG
	logConfigCmd   = 1                            // NFULA_CFG_CMD
	logConfigMode  = 2                            // NFULA_CFG_MODE
	logBind        = 1                            // NFULNL_CFG_CMD_BIND
	logCopyPacket  = 2                            // NFULNL_COPY_PACKET
	logConfigQueue = 5                            // NFULA_CFG_QTHRESH
	logPayload     = 9                            // NFULA_PAYLOAD
	logPrefix      = 10                           // NFULA_PREFIX
	logBytes       = 128                          // of each packet
)

// watchLog has the packets of denied connections sent to the connection.
func watchLog(conn *netlink.Conn) error {
	err := bindLog(conn, deniedGroup)
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EPERM) && bindLog(conn, spareGroup) == nil:
		return refuse.As(os.ErrExist, "another program receives the packets of NFLOG's group %d in this namespace", deniedGroup)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return refuse.As(errors.ErrUnsupported, "the kernel lacks NFLOG (module nfnetlink_log): %w", err)
	case err != nil:
		return fmt.Errorf("receiving the packets of NFLOG's group %d: %w", deniedGroup, err)
	}
	return nil
}

// spareGroup is a group that no one uses. The kernel answers EPERM for a group of another program,
// and for a program without CAP_NET_ADMIN, which gets that answer for this group, too.
const spareGroup = deniedGroup + 1

// bindLog has the packets of a group sent to the connection, each at once. Packets that come before
// the kernel's answer are in the records.
func bindLog(conn *netlink.Conn, group uint16) error {
	body := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
	body = nl.AppendAttr(body, logConfigCmd, []byte{logBind})
	body = nl.AppendAttr(body, logConfigMode, append(binary.BigEndian.AppendUint32(nil, logBytes), logCopyPacket, 0))
	body = nl.AppendBE32(body, logConfigQueue, 1)
	_, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: logConfig, Flags: netlink.Request | netlink.Acknowledge}, Data: body,
	})
	for answered := false; err == nil && !answered; {
		var msgs []netlink.Message
		msgs, err = conn.Receive()
		answered = slices.ContainsFunc(msgs, func(m netlink.Message) bool { return m.Header.Type == netlink.Error })
	}
	return err
}

// decodeLogged returns the denial of a packet that was logged for a table.
func decodeLogged(body []byte, table string) (d Denial, ok bool) {
	if len(body) < 4 {
		return d, false
	}
	var prefix string
	var packet []byte
	for w := nl.Walk(body[4:]); w.Next(); {
		switch w.Type() {
		case logPrefix:
			prefix = w.String()
		case logPayload:
			packet = w.Data()
		}
	}
	direction, ours := strings.CutPrefix(prefix, table+" ")
	if !ours || direction != "in" && direction != "out" {
		return d, false
	}
	d, ok = decodePacket(packet)
	d.Ingress, d.Packets = direction == "in", 1
	return d, ok
}

// decodePacket returns addresses, protocol and port of a packet.
func decodePacket(p []byte) (d Denial, ok bool) {
	if len(p) < 20 {
		return d, false
	}
	var rest []byte
	switch p[0] >> 4 {
	case 4:
		d.Src, _ = netip.AddrFromSlice(p[src4 : src4+4])
		d.Dst, _ = netip.AddrFromSlice(p[dst4 : dst4+4])
		d.Proto, rest = Proto(p[9]), p[min(len(p), int(p[0]&15)*4):]
	case 6:
		if len(p) < 40 {
			return d, false
		}
		d.Src, _ = netip.AddrFromSlice(p[src6 : src6+16])
		d.Dst, _ = netip.AddrFromSlice(p[dst6 : dst6+16])
		d.Proto, rest = upperLayer(p[6], p[40:])
	default:
		return d, false
	}
	if d.Proto.check() == nil && len(rest) >= 4 {
		d.Port = binary.BigEndian.Uint16(rest[2:])
	}
	return d, true
}

// upperLayer skips the extension headers of IPv6 (RFC 8200) that have a length in their second
// byte, and fragment headers.
func upperLayer(next byte, rest []byte) (Proto, []byte) {
	for {
		size := 8
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(rest) > 1 {
				size += int(rest[1]) * 8
			}
		case unix.IPPROTO_FRAGMENT:
		default:
			return Proto(next), rest
		}
		if len(rest) < size {
			return Proto(next), nil
		}
		next, rest = rest[0], rest[size:]
	}
}
