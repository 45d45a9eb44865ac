package route

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// encap reads what follows the word encap: the kind and its keywords, up to the
// first word that is none of them.
func (p *parser) encap() Encap {
	switch kind := p.next("the kind of encapsulation"); kind {
	case "ip", "ip6":
		e := p.ipEncap()
		if p.err == nil && e.Dst.Is6() != (kind == "ip6") {
			p.fail("the encapsulation %s leads to %s", kind, e.Dst)
		}
		return e
	case "mpls":
		return p.mpls()
	case "seg6":
		return p.seg6()
	case "seg6local":
		return p.seg6local()
	case "raw":
		e := RawEncap{Kind: uint16(p.number("the kind of encapsulation", 16))}
		e.Data = p.hex("the encapsulation")
		return e
	default:
		p.fail("the encapsulation %q is unknown", kind)
	}
	return nil
}

func (p *parser) hex(what string) []byte {
	w := p.next(what)
	b, err := hex.DecodeString(w)
	if err != nil {
		p.fail("%s %q is not hexadecimal", what, w)
	}
	return b
}

func (p *parser) ipEncap() (e IPEncap) {
	for p.err == nil {
		switch {
		case p.take("id"):
			e.ID = p.number("id", 64)
		case p.take("src"):
			e.Src = p.addr("src")
		case p.take("dst"):
			e.Dst = p.addr("dst")
		case p.take("ttl"), p.take("hoplimit"):
			e.TTL = uint8(p.number("ttl", 8))
		case p.take("tos"), p.take("tc"):
			e.TOS = uint8(p.number("tos", 8))
		case p.take("key"):
			e.Flags |= TunnelKey
		case p.take("csum"):
			e.Flags |= TunnelChecksum
		case p.take("seq"):
			e.Flags |= TunnelSequence
		case p.take("flags"):
			e.Flags |= TunnelFlags(p.number("flags", 16))
		case p.take("opts"):
			e.Options = p.hex("opts")
		default:
			return e
		}
	}
	return e
}

func (p *parser) mpls() (e MPLSEncap) {
	for _, w := range strings.Split(p.next("labels"), "/") {
		n, err := strconv.ParseUint(w, 0, 20)
		if err != nil {
			p.fail("%q is no MPLS label", w)
		}
		e.Labels = append(e.Labels, uint32(n))
	}
	if p.take("ttl") {
		e.TTL = uint8(p.number("ttl", 8))
	}
	return e
}

func (p *parser) seg6() (e Seg6Encap) {
	for p.err == nil {
		switch {
		case p.take("mode"):
			e.Mode = named(p, "mode", seg6Modes, 8)
		case p.take("segs"):
			e.Segments = p.addrs("segs")
		case p.take("hmac"):
			e.HMAC = uint32(p.number("hmac", 32))
		default:
			return e
		}
	}
	return e
}

func (p *parser) seg6local() (e Seg6LocalEncap) {
	for p.err == nil {
		switch {
		case p.take("action"):
			e.Action = named(p, "action", seg6Actions, 32)
		case p.take("segs"):
			e.Segments = p.addrs("segs")
		case p.take("table"):
			e.Table = p.table()
		case p.take("vrftable"):
			e.VRFTable = p.table()
		case p.take("nh4"):
			e.Via4 = p.addr("nh4")
		case p.take("nh6"):
			e.Via6 = p.addr("nh6")
		case p.take("iif"):
			e.In = p.index("iif")
		case p.take("oif"):
			e.Out = p.index("oif")
		case p.take("count"):
			e.Count = true
		case p.take("flavors"):
			e.Flavors = p.flavors()
		case p.take("lblen"):
			e.BlockBits = uint8(p.number("lblen", 8))
		case p.take("nflen"):
			e.NodeBits = uint8(p.number("nflen", 8))
		default:
			return e
		}
	}
	return e
}

func (p *parser) flavors() (f Seg6Flavors) {
words:
	for _, w := range strings.Split(p.next("flavors"), ",") {
		for _, n := range flavorNames {
			if n.name == w {
				f |= n.flag
				continue words
			}
		}
		p.fail("the flavor %q is unknown", w)
	}
	return f
}
