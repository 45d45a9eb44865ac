package route

import (
	"context"
	"errors"
	"fmt"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Lookup asks the kernel which route a packet would take now, including rules. It sends no
// packet.
//
// A destination without a route is ENETUNREACH. A route or rule that refuses the packet is
// an error, too: EINVAL for blackhole, EHOSTUNREACH or ENETUNREACH for unreachable, and
// EACCES, which is os.ErrPermission, for prohibit.
func Lookup(ctx context.Context, ns *netns.NS, q Query) (Match, error) {
	m, err := lookup(ctx, ns, &q)
	if err != nil {
		return Match{}, fail.New("route.Lookup", ns, "route to "+q.Dst.String(), err)
	}
	return m, nil
}

func lookup(ctx context.Context, ns *netns.NS, q *Query) (m Match, err error) {
	if err := q.check(); err != nil {
		return m, err
	}
	conn, err := open(ns)
	if err != nil {
		return m, err
	}
	// Both questions go in one send. The entry of the table, and its hops, come
	// for RTM_F_FIB_MATCH (>= 4.13); what was resolved for the other.
	reqs := []nl.Request{q.request(unix.RTM_F_FIB_MATCH), q.request(0)}
	answers := 0
	err = conn.Exec(ctx, reqs, func(i int, msg nl.Message) error {
		var r Route
		if _, ok, err := decodeAny(msg.Body, &r); !ok || err != nil {
			return err
		}
		answers |= 1 << i
		if i == 1 {
			m.Type, m.Via, m.Dev, m.Src, m.Metrics = r.Type, r.Via, r.Dev, r.Src, r.Metrics
			return nil
		}
		r.tidy()
		m.Route = r
		return nil
	})
	var many *nl.ExecError
	switch {
	case errors.As(err, &many) && len(many.Failed) > 0:
		return m, q.inWords(many.Failed[0].Err)
	case err == nil && answers != 3:
		return m, errMalformed
	}
	return m, err
}

// inWords says what the kernel's refusal means. It answers with the errno that a
// packet would get (fib_props).
func (q *Query) inWords(err *nl.Error) error {
	why := ""
	switch {
	case err.Msg != "":
	case err.Errno == unix.EINVAL && q.In != 0:
		why = "a blackhole drops it, or no packet from there may come in by that link"
	case err.Errno == unix.EINVAL:
		why = "a blackhole drops it"
	case err.Errno == unix.EACCES:
		why = "a route or a rule prohibits it"
	case err.Errno == unix.EHOSTUNREACH:
		why = "a route says that it is unreachable"
	case err.Errno == unix.ENETUNREACH:
		why = "no route leads there, or a rule says that it is unreachable"
	}
	if why == "" {
		return err
	}
	return fmt.Errorf("%s: %w", why, err)
}

func (q *Query) request(flags uint32) nl.Request {
	bits := uint8(q.Dst.BitLen())
	h := header{family: afOf(q.Dst), dstLen: bits, tos: q.TOS, flags: flags}
	if q.Dst.Is4() {
		h.flags |= unix.RTM_F_LOOKUP_TABLE // IPv6 says the table unasked, and refuses the flag
	}
	if q.Src.IsValid() {
		h.srcLen = bits
	}
	b := appendAddr(h.append(make([]byte, 0, 96), 0), unix.RTA_DST, q.Dst)
	if q.Src.IsValid() {
		b = appendAddr(b, unix.RTA_SRC, q.Src)
	}
	if q.In != 0 {
		b = nl.AppendU32(b, unix.RTA_IIF, uint32(q.In))
	}
	if q.Out != 0 {
		b = nl.AppendU32(b, unix.RTA_OIF, uint32(q.Out))
	}
	if q.Mark != 0 {
		b = nl.AppendU32(b, unix.RTA_MARK, q.Mark)
	}
	if q.UID != nil {
		b = nl.AppendU32(b, unix.RTA_UID, *q.UID)
	}
	if q.IPProto != 0 {
		b = nl.AppendU8(b, unix.RTA_IP_PROTO, q.IPProto)
	}
	if q.SrcPort != 0 {
		b = nl.AppendBE16(b, unix.RTA_SPORT, q.SrcPort)
	}
	if q.DstPort != 0 {
		b = nl.AppendBE16(b, unix.RTA_DPORT, q.DstPort)
	}
	return nl.Request{Type: unix.RTM_GETROUTE, Body: b, Names: names}
}
