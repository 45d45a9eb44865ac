package route

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// String returns the route as ip-route(8) writes it, with the link's index instead of its
// name. It leaves out defaults. [Parse] reads it.
func (r Route) String() string {
	var b strings.Builder
	if r.Type != 0 && r.Type != TypeUnicast {
		b.WriteString(r.Type.String() + " ")
	}
	switch {
	case !r.Dst.IsValid():
		b.WriteString("invalid prefix")
	case r.Dst.Bits() == 0 && (r.Dst.Addr().Is4() || r.Via.IsValid()):
		b.WriteString("default") // the gateway says which family
	case r.Dst.IsSingleIP():
		b.WriteString(r.Dst.Addr().String())
	default:
		b.WriteString(r.Dst.String())
	}
	if r.From.IsValid() {
		fmt.Fprintf(&b, " from %s", r.From)
	}
	if r.TOS != 0 {
		fmt.Fprintf(&b, " tos %#x", r.TOS)
	}
	if r.NextHop != 0 {
		fmt.Fprintf(&b, " nhid %d", r.NextHop)
	}
	writeHop(&b, r.Dst.Addr(), r.Encap, r.Via, r.Dev)
	if r.Table != 0 && r.Table != TableMain {
		fmt.Fprintf(&b, " table %s", r.Table)
	}
	if r.Protocol != 0 {
		fmt.Fprintf(&b, " proto %s", r.Protocol)
	}
	if r.Scope != 0 {
		// A command without a scope means the default, so that one is said even
		// where a listing by ip-route(8) is silent.
		d := r
		d.Scope = 0
		if r.Scope != ScopeUniverse || d.scope() != ScopeUniverse {
			fmt.Fprintf(&b, " scope %s", r.Scope)
		}
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.OnLink {
		b.WriteString(" onlink")
	}
	writeMore(&b, r.Realm, r.Flags)
	if r.Expires != 0 {
		fmt.Fprintf(&b, " expires %dsec", int64(r.Expires/time.Second))
	}
	writeMetrics(&b, r.Metrics)
	if r.Pref != PrefMedium {
		fmt.Fprintf(&b, " pref %s", r.Pref)
	}
	for _, h := range r.Hops {
		b.WriteString(" nexthop")
		writeHop(&b, r.Dst.Addr(), h.Encap, h.Via, h.Dev)
		fmt.Fprintf(&b, " weight %d", h.Weight)
		if h.OnLink {
			b.WriteString(" onlink")
		}
		writeMore(&b, h.Realm, h.Flags)
	}
	return b.String()
}

func writeHop(b *strings.Builder, dst netip.Addr, e Encap, via netip.Addr, dev int) {
	if e != nil {
		fmt.Fprintf(b, " encap %s", e)
	}
	switch {
	case !via.IsValid():
	case dst.Is4() && via.Is6():
		fmt.Fprintf(b, " via inet6 %s", via)
	default:
		fmt.Fprintf(b, " via %s", via)
	}
	if dev != 0 {
		fmt.Fprintf(b, " dev %d", dev)
	}
}

func writeMore(b *strings.Builder, r Realm, f Flags) {
	if r != (Realm{}) {
		fmt.Fprintf(b, " realm %s", r)
	}
	if f != 0 {
		b.WriteString(" " + f.String())
	}
}

func writeMetrics(b *strings.Builder, m *Metrics) {
	if m == nil {
		return
	}
	lock := func(attr uint16) string {
		if m.Lock&(1<<attr) != 0 {
			return "lock "
		}
		return ""
	}
	for i, d := range metrics {
		if m.value(i) != 0 {
			fmt.Fprintf(b, " %s %s%s", d.name, lock(d.attr), m.text(i))
		}
	}
	if m.Congestion != "" {
		fmt.Fprintf(b, " congctl %s%s", lock(rtaxCCAlgo), m.Congestion)
	}
}
