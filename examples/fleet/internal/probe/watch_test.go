//go:build linux

package probe

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// What a packet socket takes for a wrong checksum is what the kernel drops for it.
func TestBadChecksumIsTheKernels(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shape{})
	w.serve()
	nft(t, w.mid, "add table inet t; add chain inet t c { type filter hook forward priority 0; }; add rule inet t c iifname a0 udp dport 4790 udp checksum set 0xbeef")
	before := checksumErrors(t, w.b)
	m := newMarker()
	watching := must(w.self.openWatch(t.Context(), m, netip.Addr{}))(t)
	defer watching.file.Close()
	to := w.nodeB.Prefixes[0].Addr().Next()
	must(echoAll(t.Context(), w.a, nil, []netip.Addr{to}, m))(t)
	n := must(watching.counts())(t)
	if dropped := checksumErrors(t, w.b) - before; n[byICMP].Bad == 0 || n[byICMP].Bad != dropped || n[byICMP].WireIn != dropped || n[byICMP].LinkIn != 0 {
		t.Errorf("counted %+v, and the kernel dropped %d", n[byICMP], dropped)
	}
}

// checksumErrors is how many UDP packets the kernel has dropped for their checksum.
func checksumErrors(t *testing.T, ns *netns.NS) (n int) {
	t.Helper()
	var names []string
	for line := range strings.Lines(run(t, ns, "cat", "/proc/net/snmp")) {
		fields := strings.Fields(line)
		if fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "InCsumErrors" {
				fmt.Sscan(fields[i], &n)
			}
		}
	}
	return n
}

// WireGuard hides the marker: what counts is small and between the two hosts' tunnels.
func TestWatchHidden(t *testing.T) {
	t.Parallel()
	a, b := netnstest.Pair(t)
	for _, ends := range [][2]netip.Prefix{{a.Addr4, b.Addr4}, {a.Addr6, b.Addr6}} {
		from, to := ends[0].Addr(), ends[1].Addr()
		if !from.IsValid() {
			continue
		}
		right := must(openWatch(t.Context(), b.NS, 0, 4790, newMarker(), from))(t)
		defer right.file.Close()
		wrong := must(openWatch(t.Context(), b.NS, 0, 4790, newMarker(), netip.MustParseAddr("192.0.2.9")))(t)
		defer wrong.file.Close()
		pc := must(b.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(to, 4790).String()))(t)
		defer pc.Close()
		send := func(port uint16, size int) {
			c := must(a.Dial(t.Context(), "udp", netip.AddrPortFrom(to, port).String()))(t)
			defer c.Close()
			must(c.Write(make([]byte, size)))(t)
		}
		send(4790, 1)
		send(4790, 1200) // traffic, and no probe
		send(4791, 100)  // another program's
		send(4790, 160)
		buf := make([]byte, 2000)
		for range 3 { // what has arrived here has passed the packet sockets
			must2(pc.ReadFrom(buf))(t)
		}
		if n := must(right.counts())(t); n[byICMP].WireIn != 2 || n[byUDP].WireIn != 2 || n[byICMP].WireOut != 0 || n[byICMP].Bad != 0 {
			t.Errorf("%v: %+v, want 2", from, n)
		}
		if n := must(wrong.counts())(t); n != (counts{}) {
			t.Errorf("of another host: %+v", n)
		}
	}
}

func must2(n int, _ net.Addr, err error) func(*testing.T) int { return must(n, err) }

func FuzzClassify(f *testing.F) {
	w := &watch{port: 4790, marker: marker{1, 2, 3}}
	e := &echo{family: netns.IPv4, nonce: w.marker[:]}
	packet := append([]byte{0x45, 0, 0, 52, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, e.request(0)...)
	f.Add(packet)
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 24, 58, 64, 40: 0}, e.request(0)...))
	f.Add([]byte{0x4f})
	f.Fuzz(func(t *testing.T, b []byte) { w.classify(b) })
}
