package route

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/enum"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Parse reads a route as [Route.String] writes it. That is the form of ip-route(8), with
// links given by index:
//
//	default via 10.88.0.1 dev 3 proto static metric 100
//	unreachable fd00::/8 metric 4294967295
//	10.9.0.0/16 nexthop via 10.1.0.1 weight 1 nexthop via 10.2.0.1 weight 3
//
// Tables may have the names of [TableNamed]. Unknown text is os.ErrInvalid, and so is a
// route that [Add] would refuse. A "default" without a gateway is IPv4's.
func Parse(s string) (Route, error) {
	p := parser{words: strings.Fields(s)}
	r := p.route()
	if p.err == nil {
		p.err = r.check(true) // a route to delete is one, too
	}
	if p.err != nil {
		return Route{}, failed("route.Parse", fmt.Sprintf("%q", s), p.err)
	}
	return r, nil
}

// parser reads word by word; the first error sticks.
type parser struct {
	words []string
	err   error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = refuse.Input(format, args...)
	}
}

// take steps over the next word if it is the one.
func (p *parser) take(word string) bool {
	if p.err == nil && len(p.words) > 0 && p.words[0] == word {
		p.words = p.words[1:]
		return true
	}
	return false
}

// next returns the next word, which what needs.
func (p *parser) next(what string) string {
	if p.err != nil {
		return ""
	}
	if len(p.words) == 0 {
		p.fail("the text ends where %s should follow", what)
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *parser) number(what string, bits int) uint64 {
	w := p.next(what)
	n, err := strconv.ParseUint(w, 0, bits)
	if err != nil {
		p.fail("%s %q is not a number of up to %d bits", what, w, bits)
	}
	return n
}

func (p *parser) addr(what string) netip.Addr {
	w := p.next(what)
	a, err := netip.ParseAddr(w)
	if err != nil {
		p.fail("%s %q is no address", what, w)
	}
	return a
}

func (p *parser) addrs(what string) (all []netip.Addr) {
	for _, w := range strings.Split(p.next(what), ",") {
		a, err := netip.ParseAddr(w)
		if err != nil {
			p.fail("%s %q is no address", what, w)
		}
		all = append(all, a)
	}
	return all
}

func (p *parser) prefix(what string) netip.Prefix {
	w := p.next(what)
	if a, err := netip.ParseAddr(w); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen())
	}
	x, err := netip.ParsePrefix(w)
	if err != nil {
		p.fail("%s %q is no prefix", what, w)
	}
	return x
}

func (p *parser) table() Table {
	w := p.next("table")
	if p.err != nil {
		return 0
	}
	t, err := tableNamed(w)
	if err != nil {
		p.err = err
	}
	return t
}

func (p *parser) index(what string) int { return int(p.number(what+" (the index of a link)", 31)) }

// named reads a name, or a number.
func named[T ~uint8 | ~uint16 | ~uint32](p *parser, what string, names map[T]string, bits int) T {
	w := p.next(what)
	v, ok := enum.Value(names, w, bits)
	if !ok {
		p.fail("%s %q is unknown", what, w)
	}
	return v
}

func (p *parser) route() (r Route) {
	if len(p.words) > 0 {
		for t, name := range typeNames {
			if p.take(name) {
				r.Type = t
				break
			}
		}
	}
	isDefault := p.take("default")
	if !isDefault {
		r.Dst = p.prefix("destination")
	}
	inet6 := false
	for p.err == nil && len(p.words) > 0 {
		if p.take("nexthop") {
			r.Hops = append(r.Hops, p.hop())
			continue
		}
		if p.take("via") {
			inet6 = p.take("inet6")
			r.Via = p.addr("via")
			continue
		}
		p.option(&r)
	}
	if isDefault {
		r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Via.Is6() && !inet6 {
			r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	if p.err == nil && r.Dst.IsValid() && r.Dst.Addr().Is4() && r.Via.Is6() && !inet6 {
		p.fail("the gateway %s is of another family than the destination; write via inet6", r.Via)
	}
	return r
}

// option reads one keyword of a route and its value.
func (p *parser) option(r *Route) {
	switch w := p.next("a keyword"); w {
	case "from":
		r.From = p.prefix(w)
	case "tos", "dsfield":
		r.TOS = uint8(p.number(w, 8))
	case "nhid":
		r.NextHop = uint32(p.number(w, 32))
	case "encap":
		r.Encap = p.encap()
	case "dev":
		r.Dev = p.index(w)
	case "table":
		r.Table = p.table()
	case "proto", "protocol":
		if r.Protocol = named(p, w, protocolNames, 8); r.Protocol == 0 {
			r.Protocol = ProtoUnspec
		}
	case "scope":
		if r.Scope = named(p, w, scopeNames, 8); r.Scope == 0 {
			r.Scope = ScopeUniverse
		}
	case "src":
		r.Src = p.addr(w)
	case "metric", "preference", "priority":
		r.Metric = uint32(p.number(w, 32))
	case "onlink":
		r.OnLink = true
	case "realm", "realms":
		r.Realm = p.realm()
	case "expires":
		w, _ := strings.CutSuffix(p.next("expires"), "sec")
		n, err := strconv.ParseUint(w, 10, 31)
		if err != nil {
			p.fail("expires %q is no number of seconds", w)
		}
		r.Expires = time.Duration(n) * time.Second
	case "pref":
		r.Pref = named(p, w, prefNames, 8)
	case "congctl":
		p.metrics(r).Congestion = p.locked(r, rtaxCCAlgo, w)
	default:
		if p.metric(r, w) {
			return
		}
		r.Flags |= p.flag(w)
	}
}

// metrics returns the route's metrics, made when first asked for.
func (p *parser) metrics(r *Route) *Metrics {
	if r.Metrics == nil {
		r.Metrics = &Metrics{}
	}
	return r.Metrics
}

// locked reads the value of a metric, and "lock" before it.
func (p *parser) locked(r *Route, attr uint16, what string) string {
	if p.take("lock") {
		p.metrics(r).Lock |= 1 << attr
	}
	return p.next(what)
}

// metric reads a metric if it is one.
func (p *parser) metric(r *Route, name string) bool {
	for i, d := range metrics {
		if d.name != name {
			continue
		}
		w := p.locked(r, d.attr, name)
		if d.duration != nil {
			ms, err := strconv.ParseFloat(strings.TrimSuffix(w, "ms"), 64)
			if err != nil || !(ms >= 0 && ms < 1<<32) {
				p.fail("%s %q is no number of milliseconds", name, w)
				return true
			}
			*d.duration(p.metrics(r)) = time.Duration(ms * float64(time.Millisecond))
			return true
		}
		n, err := strconv.ParseUint(w, 0, 32)
		if err != nil {
			p.fail("%s %q is not a number of up to 32 bits", name, w)
		}
		p.metrics(r).setValue(i, uint32(n))
		return true
	}
	return false
}

func (p *parser) flag(w string) Flags {
	for _, f := range flagNames {
		if f.name == w {
			return f.flag
		}
	}
	if n, err := strconv.ParseUint(w, 0, 32); err == nil && strings.HasPrefix(w, "0x") {
		return Flags(n)
	}
	p.fail("the word %q is unknown", w)
	return 0
}

func (p *parser) realm() Realm {
	from, to, two := strings.Cut(p.next("realm"), "/")
	if !two {
		from, to = "0", from
	}
	f, err1 := strconv.ParseUint(from, 0, 16)
	t, err2 := strconv.ParseUint(to, 0, 16)
	if err1 != nil || err2 != nil {
		p.fail("the realm %q is no number, nor two with a slash between", from+"/"+to)
	}
	return Realm{From: uint16(f), To: uint16(t)}
}

// hop reads what follows the word nexthop.
func (p *parser) hop() (h Hop) {
	h.Weight = 1
	for p.err == nil && len(p.words) > 0 && p.words[0] != "nexthop" {
		switch w := p.next("a keyword"); w {
		case "via":
			p.take("inet6")
			h.Via = p.addr(w)
		case "dev":
			h.Dev = p.index(w)
		case "weight":
			h.Weight = int(p.number(w, 16))
		case "onlink":
			h.OnLink = true
		case "encap":
			h.Encap = p.encap()
		case "realm", "realms":
			h.Realm = p.realm()
		default:
			h.Flags |= p.flag(w)
		}
	}
	return h
}
