package nat

import (
	"net"
	"slices"
	"testing"
	"time"
)

// BenchmarkFlowtable is a datagram from the outside to a published port: through the rules, through the
// flowtable, and, routed to the box's own address, through no table at all. They take turns, so that what
// disturbs one disturbs all; the medians are reported in microseconds, sockets included, and as ratios to the
// one without a table. Kernels with a flowtable are those of the matrix:
//
//	go -C internal/vmtest run . -kernel 6.12,7.2 -run '^$' -bench Flowtable nat
func BenchmarkFlowtable(b *testing.B) {
	needFlowtable(b)
	const rules, fast, bare = "rules", "flowtable", "no-table"
	names := []string{rules, fast, bare}
	flows := make(map[string]*oneWay)
	for _, name := range names {
		s := wire(b)
		to := "203.0.113.1:8080"
		if name == bare {
			setSysctl(b, s.host, "ipv4/conf/all/forwarding", "1")
			to = "10.88.0.2:80"
		} else {
			s.gw = open(b, s.host)
			net := network0()
			net.Flowtable = name == fast
			if err := s.gw.AddNetwork(b.Context(), net); err != nil {
				b.Fatal(err)
			}
			if err := s.gw.Publish(b.Context(), udp("0.0.0.0:8080", "10.88.0.2:80", "web")); err != nil {
				b.Fatal(err)
			}
		}
		flows[name] = newOneWay(b, s, to)
	}
	took := make(map[string][]time.Duration)
	for b.Loop() {
		for _, name := range names {
			took[name] = append(took[name], flows[name].burst(b))
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return float64(took[name][len(took[name])/2]) / float64(time.Microsecond) / burstLen
	}
	for _, name := range names {
		b.ReportMetric(median(name), name+"-µs")
		b.ReportMetric(median(name)/median(bare), name+"/"+bare)
	}
}

// burstLen is how many datagrams are on their way at once.
const burstLen = 32

// oneWay is a flow of datagrams that has been answered.
type oneWay struct {
	from net.Conn
	to   net.PacketConn
}

// newOneWay begins a flow to the box's port 80 by an address.
func newOneWay(b *testing.B, s topology, addr string) *oneWay {
	b.Helper()
	to, err := s.box.ListenPacket(b.Context(), "udp", "10.88.0.2:80")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { to.Close() })
	from, err := s.outside.Dial(b.Context(), "udp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { from.Close() })
	text := make([]byte, textLen)
	answers := 0
	if !until(func() bool {
		soon := time.Now().Add(100 * time.Millisecond)
		from.Write(text)
		to.SetReadDeadline(soon)
		if _, source, err := to.ReadFrom(text); err == nil {
			to.WriteTo(text, source)
			from.SetReadDeadline(soon)
			if _, err := from.Read(text); err == nil {
				answers++
			}
		}
		return answers > 10
	}) {
		b.Fatalf("no answers from %s", addr)
	}
	return &oneWay{from, to}
}

// burst sends datagrams and returns how long it took until all had arrived.
func (w *oneWay) burst(b *testing.B) time.Duration {
	text := make([]byte, textLen)
	w.to.SetReadDeadline(time.Now().Add(time.Minute))
	began := time.Now()
	for range burstLen {
		w.from.Write(text)
	}
	for range burstLen {
		if _, _, err := w.to.ReadFrom(text); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began)
}
