package nat

import (
	"errors"
	"fmt"
	"github.com/boxwire/boxwire/netns/netnstest"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func tcp(host, box, owner string) Port {
	return Port{Proto: TCP, Host: ap(host), Box: ap(box), Owner: owner}
}

// ranged makes a range of a port.
func ranged(p Port, last uint16) Port {
	p.HostLast = last
	return p
}

func TestBadPortsAreRefusedByName(t *testing.T) {
	t.Parallel()
	good := tcp("0.0.0.0:80", "10.0.0.2:80", "web")
	with := func(change func(*Port)) []Port {
		p := good
		change(&p)
		return []Port{p}
	}
	for name, c := range map[string]struct {
		ports []Port
		want  string
	}{
		"zero":              {[]Port{{}}, "protocol"},
		"proto":             {with(func(p *Port) { p.Proto = 1 }), "protocol"},
		"no host":           {with(func(p *Port) { p.Host = netip.AddrPort{} }), "host address is missing"},
		"no box":            {with(func(p *Port) { p.Box = netip.AddrPort{} }), "box address is missing"},
		"host port 0":       {with(func(p *Port) { p.Host = ap("0.0.0.0:0") }), "host port is 0"},
		"box port 0":        {with(func(p *Port) { p.Box = ap("10.0.0.2:0") }), "box port is 0"},
		"host multicast":    {with(func(p *Port) { p.Host = ap("224.0.0.1:80") }), "multicast"},
		"host broadcast":    {with(func(p *Port) { p.Host = ap("255.255.255.255:80") }), "broadcast"},
		"host link-local":   {with(func(p *Port) { p.Host = ap("169.254.1.1:80") }), "link-local"},
		"host zone":         {with(func(p *Port) { p.Host = ap("[fe80::1%eth0]:80") }), "zone"},
		"host mapped":       {with(func(p *Port) { p.Host = ap("[::ffff:10.0.0.1]:80") }), "Unmap"},
		"host ::1":          {[]Port{tcp("[::1]:80", "[fd00::2]:80", "web")}, "does not translate"},
		"box unspecified":   {with(func(p *Port) { p.Box = ap("0.0.0.0:80") }), "unspecified"},
		"box loopback":      {with(func(p *Port) { p.Box = ap("127.0.0.1:80") }), "loopback"},
		"box multicast":     {[]Port{tcp("[::]:80", "[ff02::1]:80", "web")}, "multicast"},
		"families":          {with(func(p *Port) { p.Box = ap("[fd00::2]:80") }), "different families"},
		"no owner":          {with(func(p *Port) { p.Owner = "" }), "owner is empty"},
		"long owner":        {with(func(p *Port) { p.Owner = strings.Repeat("x", MaxOwner+1) }), "128 bytes"},
		"owner control":     {with(func(p *Port) { p.Owner = "a\nb" }), "control character"},
		"owner NUL":         {with(func(p *Port) { p.Owner = "a\x00b" }), "control character"},
		"owner quote":       {with(func(p *Port) { p.Owner = `a"b` }), "quotation mark"},
		"owner not UTF-8":   {with(func(p *Port) { p.Owner = "a\xff" }), "UTF-8"},
		"twice":             {[]Port{good, good}, "same host port"},
		"range backwards":   {[]Port{ranged(good, 79)}, "ends (79) before it begins (80)"},
		"box backwards":     {with(func(p *Port) { p.HostLast, p.BoxLast = 81, 79 }), "box's range ends (79) before"},
		"lengths":           {with(func(p *Port) { p.HostLast, p.BoxLast = 90, 89 }), "11 ports on the host, 10 in the box"},
		"box range only":    {with(func(p *Port) { p.BoxLast = 89 }), "1 ports on the host, 10 in the box"},
		"box overflows":     {[]Port{ranged(tcp("0.0.0.0:1", "10.0.0.2:65000", "web"), 1000)}, "after 65535"},
		"ranges overlap":    {[]Port{ranged(good, 90), ranged(tcp("0.0.0.0:90", "10.0.0.3:90", "web"), 99)}, "tcp 0.0.0.0:80-90 -> 10.0.0.2:80-90, which takes"},
		"range over single": {[]Port{tcp("10.1.1.1:85", "10.0.0.2:80", "web"), ranged(good, 90)}, "same host port"},
		"range in range":    {[]Port{ranged(good, 90), ranged(tcp("10.1.1.1:82", "10.0.0.2:82", "web"), 83)}, "same host port"},
		"wild then single":  {[]Port{good, tcp("10.1.1.1:80", "10.0.0.3:80", "x")}, "same host port"},
		"single then wild":  {[]Port{tcp("10.1.1.1:80", "10.0.0.3:80", "x"), good}, "same host port"},
		"the second is bad": {[]Port{good, {}}, "protocol"},
	} {
		_, err := checkPorts(c.ports)
		if !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want os.ErrInvalid with %q", name, err, c.want)
		}
	}
}

func TestGoodPortsPass(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	udp := tcp("0.0.0.0:80", "10.0.0.2:80", "web")
	udp.Proto = UDP
	if p, err := checkPorts([]Port{
		tcp("0.0.0.0:80", "10.0.0.2:80", "web"), udp,
		tcp("[::]:80", "[fd00::2]:80", "web"),
		tcp("127.0.0.1:81", "10.0.0.2:80", "web"),
		tcp("10.1.1.1:81", "10.0.0.2:80", strings.Repeat("x", MaxOwner)),
	}); err != nil {
		t.Errorf("%v: %v", p, err)
	}
}

func TestPortsAreWrittenAsRanges(t *testing.T) {
	t.Parallel()
	p := ranged(tcp("[::]:8000", "[fd00::2]:9000", "web"), 8010)
	if got, want := p.String(), "tcp [::]:8000-8010 -> [fd00::2]:9000-9010"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	p.HostLast = 8000
	if got, want := p.String(), "tcp [::]:8000 -> [fd00::2]:9000"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if SCTP.String() != "sctp" || ICMP.String() != "icmp" || Proto(2).String() != "protocol 2" {
		t.Error(SCTP, ICMP, Proto(2))
	}
}

// Overlaps are found by sorting; comparing every two gives the same result.
func TestOverlapFindsWhatComparingEveryTwoFinds(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	hosts := []string{"0.0.0.0", "10.1.1.1", "10.1.1.2", "[::]", "[2001:db8::1]"}
	found := 0
	for round := range 20000 {
		var ports []Port
		many, numbers := 5, 40
		if round%20 == 0 {
			many, numbers = 60, 10000
		}
		for range 1 + r.IntN(many) {
			p := Port{Proto: []Proto{TCP, UDP}[r.IntN(2)], Host: ap(fmt.Sprintf("%s:%d", hosts[r.IntN(len(hosts))], 1+r.IntN(numbers)))}
			if r.IntN(2) == 0 {
				p.HostLast = p.Host.Port() + uint16(r.IntN(10))
			}
			ports = append(ports, p)
		}
		want := false
		for i, p := range ports {
			for _, q := range ports[:i] {
				want = want || p.claim().Overlaps(q.claim())
			}
		}
		i, j, got := overlap(ports)
		if got != want || got && (i >= j || !ports[i].claim().Overlaps(ports[j].claim())) {
			t.Fatalf("%v: %d, %d, %v, want %v", ports, i, j, got, want)
		}
		if got {
			found++
		}
	}
	if found < 1000 || found > 19000 {
		t.Errorf("%d of 20000 overlap: the test is too easy", found)
	}
}

func TestTableNames(t *testing.T) {
	t.Parallel()
	if name, err := tableName(""); name != "boxwire" || err != nil {
		t.Errorf("default: %q, %v", name, err)
	}
	for _, bad := range []string{"1a", "a b", "a/b", `a"`, "é", strings.Repeat("a", 65)} {
		if _, err := tableName(bad); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
