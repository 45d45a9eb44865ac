package route

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Attributes of rules (linux/fib_rules.h).
const (
	fraDst, fraSrc, fraIIF, fraGoto, fraPriority, fraMark        = 1, 2, 3, 4, 6, 10
	fraFlow, fraTunID, fraSuppressGroup, fraSuppressLen          = 11, 12, 13, 14
	fraTable, fraMask, fraOIF, fraPad, fraL3MDev, fraUIDs        = 15, 16, 17, 18, 19, 20
	fraProtocol, fraIPProto, fraSport, fraDport, fraDSCP         = 21, 22, 23, 24, 25
	fraLabel, fraLabelMask, fraSportMask, fraDportMask           = 26, 27, 28, 29
	fraDSCPMask                                                  = 30
	ruleInvert, ruleUnresolved, ruleIIFGone, ruleOIFGone         = 2, 4, 8, 16 // FIB_RULE_*
	ruleDetached                                          uint32 = ruleUnresolved | ruleIIFGone | ruleOIFGone
)

var ruleAttrNames = map[uint16]string{
	fraDst: "FRA_DST", fraSrc: "FRA_SRC", fraIIF: "FRA_IIFNAME", fraGoto: "FRA_GOTO", fraPriority: "FRA_PRIORITY",
	fraMark: "FRA_FWMARK", fraFlow: "FRA_FLOW", fraTunID: "FRA_TUN_ID", fraSuppressGroup: "FRA_SUPPRESS_IFGROUP",
	fraSuppressLen: "FRA_SUPPRESS_PREFIXLEN", fraTable: "FRA_TABLE", fraMask: "FRA_FWMASK", fraOIF: "FRA_OIFNAME",
	fraL3MDev: "FRA_L3MDEV", fraUIDs: "FRA_UID_RANGE", fraProtocol: "FRA_PROTOCOL", fraIPProto: "FRA_IP_PROTO",
	fraSport: "FRA_SPORT_RANGE", fraDport: "FRA_DPORT_RANGE", fraDSCP: "FRA_DSCP", fraLabel: "FRA_FLOWLABEL",
	fraLabelMask: "FRA_FLOWLABEL_MASK", fraSportMask: "FRA_SPORT_MASK", fraDportMask: "FRA_DPORT_MASK",
	fraDSCPMask: "FRA_DSCP_MASK",
}

func ruleNames(path []uint16) string { return ruleAttrNames[path[0]] }

// request builds the message that adds or deletes a rule; its body is appended
// to b. verbAppend adds it as it was listed, though it is there.
func (r *Rule) request(b []byte, v verb) nl.Request {
	req := nl.Request{Type: unix.RTM_NEWRULE, Flags: verbFlags[v], Names: ruleNames}
	action, protocol := max(r.Action, ActionToTable), r.Protocol
	switch v {
	case verbDelete: // 0 matches any
		req.Type, action = unix.RTM_DELRULE, r.Action
	case verbAdd:
		protocol = cmp.Or(protocol, ProtoStatic)
	}
	req.Body = r.append(b, action, protocol)
	return req
}

func (r *Rule) append(b []byte, action Action, protocol Protocol) []byte {
	af, flags := uint8(unix.AF_INET), uint32(0)
	if r.family() == IPv6 {
		af = unix.AF_INET6
	}
	if r.Not {
		flags = ruleInvert
	}
	table, long := uint8(r.Table), uint32(0)
	if r.Table >= 256 {
		table, long = unix.RT_TABLE_UNSPEC, uint32(r.Table)
	}
	b = append(b, af, uint8(max(r.To.Bits(), 0)), uint8(max(r.From.Bits(), 0)), r.TOS, table, 0, 0, uint8(action))
	b = binary.NativeEndian.AppendUint32(b, flags)
	if r.To.Bits() > 0 {
		b = appendAddr(b, fraDst, r.To.Addr())
	}
	if r.From.Bits() > 0 {
		b = appendAddr(b, fraSrc, r.From.Addr())
	}
	if r.IIF != "" {
		b = nl.AppendString(b, fraIIF, r.IIF)
	}
	if r.OIF != "" {
		b = nl.AppendString(b, fraOIF, r.OIF)
	}
	if r.First || r.Priority != 0 {
		b = nl.AppendU32(b, fraPriority, r.Priority)
	}
	b = appendNonZero(b, fraGoto, r.Goto)
	b = appendNonZero(b, fraTable, long)
	if mask := r.normal().MarkMask; mask != nil {
		b = nl.AppendU32(b, fraMark, r.Mark)
		b = nl.AppendU32(b, fraMask, *mask)
	}
	if r.DSCP != nil {
		b = nl.AppendU8(b, fraDSCP, *r.DSCP)
		if r.DSCPMask != nil && *r.DSCPMask != 63 {
			b = nl.AppendU8(b, fraDSCPMask, *r.DSCPMask)
		}
	}
	if r.FlowLabel != 0 || r.FlowLabelMask != 0 {
		n := r.normal()
		b = nl.AppendBE32(b, fraLabel, n.FlowLabel)
		b = nl.AppendBE32(b, fraLabelMask, n.FlowLabelMask)
	}
	if r.UIDs != nil {
		raw := binary.NativeEndian.AppendUint32(nil, r.UIDs.First)
		b = nl.AppendAttr(b, fraUIDs, binary.NativeEndian.AppendUint32(raw, r.UIDs.Last))
	}
	if r.IPProto != 0 {
		b = nl.AppendU8(b, fraIPProto, r.IPProto)
	}
	b = r.SrcPorts.append(b, fraSport, fraSportMask)
	b = r.DstPorts.append(b, fraDport, fraDportMask)
	if r.TunID != 0 {
		b = nl.AppendBE64(b, fraTunID, r.TunID)
	}
	if r.L3MDev {
		b = nl.AppendU8(b, fraL3MDev, 1)
	}
	if r.SuppressPrefixLen != nil {
		b = nl.AppendU32(b, fraSuppressLen, uint32(*r.SuppressPrefixLen))
	}
	if r.SuppressGroup != nil {
		b = nl.AppendU32(b, fraSuppressGroup, *r.SuppressGroup)
	}
	if r.Realm != (Realm{}) {
		b = nl.AppendU32(b, fraFlow, uint32(r.Realm.From)<<16|uint32(r.Realm.To))
	}
	if protocol != 0 {
		b = nl.AppendU8(b, fraProtocol, uint8(protocol))
	}
	return append(b, r.Unknown...)
}

func (p Ports) append(b []byte, attr, maskAttr uint16) []byte {
	if p == (Ports{}) {
		return b
	}
	raw := binary.NativeEndian.AppendUint16(nil, p.First)
	b = nl.AppendAttr(b, attr, binary.NativeEndian.AppendUint16(raw, max(p.First, p.Last)))
	if p.Mask != 0 && p.Mask != 1<<16-1 {
		b = nl.AppendU16(b, maskAttr, p.Mask)
	}
	return b
}

func appendNonZero(b []byte, attr uint16, v uint32) []byte {
	if v == 0 {
		return b
	}
	return nl.AppendU32(b, attr, v)
}

var errMalformedRule = errors.New("malformed reply: no rule in it")

// decodeRule reads the body of an RTM_NEWRULE or RTM_DELRULE message. ok is
// false for rules of other families: those of multicast routing.
func decodeRule(b []byte, r *Rule) (ok bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return false, errMalformedRule
	}
	*r = Rule{Family: IPv4, Protocol: ProtoUnspec, TOS: b[3], Table: Table(b[4]), Action: Action(b[7])}
	af := b[0]
	switch af {
	case unix.AF_INET:
	case unix.AF_INET6:
		r.Family = IPv6
	default:
		return false, nil
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	r.Not = flags&ruleInvert != 0
	r.Detached = flags&ruleDetached != 0
	var src, dst netip.Addr
	w := nl.Walk(b[unix.SizeofRtMsg:])
	for w.Next() {
		switch w.Type() {
		case fraDst:
			dst = addrOf(af, w.Data())
		case fraSrc:
			src = addrOf(af, w.Data())
		default:
			r.attr(&w)
		}
	}
	if err := w.Err(); err != nil {
		return false, err
	}
	r.First = r.Priority == 0
	if dst.IsValid() {
		r.To = netip.PrefixFrom(dst, int(b[1]))
	}
	if src.IsValid() {
		r.From = netip.PrefixFrom(src, int(b[2]))
	}
	if dst.IsValid() && !r.To.IsValid() || src.IsValid() && !r.From.IsValid() {
		return false, errMalformedRule
	}
	return true, nil
}

// attr reads one attribute of a rule.
func (r *Rule) attr(w *nl.Walker) {
	switch w.Type() {
	case fraIIF:
		r.IIF = w.String()
	case fraOIF:
		r.OIF = w.String()
	case fraPriority:
		r.Priority = w.U32()
	case fraGoto:
		r.Goto = w.U32()
	case fraTable:
		r.Table = Table(w.U32())
	case fraMark:
		r.Mark = w.U32()
	case fraMask:
		r.MarkMask = new(w.U32())
	case fraDSCP:
		r.DSCP = new(w.U8())
	case fraDSCPMask:
		r.DSCPMask = new(w.U8())
	case fraLabel:
		r.FlowLabel = w.BE32()
	case fraLabelMask:
		r.FlowLabelMask = w.BE32()
	case fraUIDs:
		if d := w.Data(); len(d) >= 8 {
			r.UIDs = &UIDRange{binary.NativeEndian.Uint32(d), binary.NativeEndian.Uint32(d[4:])}
		}
	case fraIPProto:
		r.IPProto = w.U8()
	case fraSport:
		r.SrcPorts.read(w.Data())
	case fraDport:
		r.DstPorts.read(w.Data())
	case fraSportMask:
		r.SrcPorts.Mask = w.U16()
	case fraDportMask:
		r.DstPorts.Mask = w.U16()
	case fraTunID:
		r.TunID = w.BE64()
	case fraL3MDev:
		r.L3MDev = w.U8() != 0
	case fraSuppressLen:
		if n := int32(w.U32()); n >= 0 { // -1 is none
			r.SuppressPrefixLen = new(int(n))
		}
	case fraSuppressGroup:
		if n := w.U32(); int32(n) >= 0 { // -1 is none
			r.SuppressGroup = &n
		}
	case fraFlow:
		r.Realm = readRealm(w.U32())
	case fraProtocol:
		r.Protocol = protocolOf(w.U8())
	case fraPad:
	default:
		r.Unknown = nl.AppendAttr(r.Unknown, w.Type(), w.Data())
	}
}

func (p *Ports) read(b []byte) {
	if len(b) >= 4 {
		p.First, p.Last = binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:])
	}
}
