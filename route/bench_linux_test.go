package route

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// tableSize is how many routes the benchmarks work on.
func tableSize() int {
	if testing.Short() {
		return 10_000
	}
	return 100_000
}

// A watch of the time that ways to do the same take, in turns.
type race struct {
	b     *testing.B
	names []string
	took  map[string]time.Duration
}

func (r *race) run(name string, fn func()) {
	r.b.Helper()
	if r.took == nil {
		r.took = map[string]time.Duration{}
	}
	if _, ok := r.took[name]; !ok {
		r.names = append(r.names, name)
	}
	began := time.Now()
	fn()
	r.took[name] += time.Since(began)
}

// report says how long each took for a table, and how many times the first.
func (r *race) report() {
	r.b.ReportMetric(0, "ns/op")
	for i, name := range r.names {
		r.b.ReportMetric(float64(r.took[name].Milliseconds())/float64(r.b.N), name+"-ms")
		if i > 0 {
			r.b.ReportMetric(float64(r.took[name])/float64(r.took[r.names[0]]), name+"/"+r.names[0])
		}
	}
}

// BenchmarkTableList reads a full table: with plain system calls into a slice of
// what is in it, by All and by List.
func BenchmarkTableList(b *testing.B) {
	for _, f := range []Family{IPv4, IPv6} {
		b.Run(fmt.Sprint("IPv", f), func(b *testing.B) {
			ns, n := netnstest.New(b), tableSize()
			if err := Add(b.Context(), ns, hosts(f, n)...); err != nil {
				b.Fatal(err)
			}
			p := openPlain(b, ns)
			filter := Filter{Family: f, Table: TableMain}
			r := race{b: b}
			var before, after runtime.MemStats
			var held uint64
			for b.Loop() {
				r.run("plain", func() {
					if got := p.list(b, f); got < n {
						b.Fatalf("%d routes", got)
					}
				})
				runtime.ReadMemStats(&before)
				r.run("All", func() {
					got := 0
					for _, err := range All(b.Context(), ns, filter) {
						if got++; err != nil {
							b.Fatal(err)
						}
					}
					if got < n {
						b.Fatalf("%d routes", got)
					}
				})
				runtime.ReadMemStats(&after)
				held += after.TotalAlloc - before.TotalAlloc
				r.run("List", func() {
					if got, err := List(b.Context(), ns, filter); err != nil || len(got) < n {
						b.Fatal(len(got), err)
					}
				})
			}
			r.report()
			b.ReportMetric(float64(held)/float64(b.N), "All-B")
		})
	}
}

// BenchmarkTableChange fills a table and empties it: with plain system calls, by
// Add and Flush, by Sync, and by ip -batch.
func BenchmarkTableChange(b *testing.B) {
	ns, n := netnstest.New(b), tableSize()
	routes := hosts(IPv4, n)
	p := openPlain(b, ns)
	batch := filepath.Join(b.TempDir(), "batch")
	var text strings.Builder
	for _, r := range routes {
		fmt.Fprintf(&text, "route add %s dev lo proto 77\n", r.Dst)
	}
	if err := os.WriteFile(batch, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	ip := testutil.Witness(b, "ip")
	check := func(err error) {
		if err != nil {
			b.Helper()
			b.Fatal(err)
		}
	}
	flush := func(f Filter) {
		got, err := Flush(b.Context(), ns, f)
		if check(err); got != n {
			b.Fatalf("%d flushed", got)
		}
	}
	mine := Filter{Protocol: 77}
	changed := make([]Route, n)
	for i, r := range routes {
		if i%100 == 0 {
			r.Metrics = &Metrics{MTU: 1400}
		}
		changed[i] = r
	}
	r := race{b: b}
	for b.Loop() {
		r.run("plain-add", func() { p.add(b, routes) })
		flush(Filter{Protocol: ProtoStatic})
		r.run("Add", func() { check(Add(b.Context(), ns, routes...)) })
		r.run("Flush", func() { flush(Filter{Protocol: ProtoStatic}) })
		r.run("ip-batch", func() {
			_, err := netns.Do(b.Context(), ns, func(context.Context) (int, error) {
				return 0, osexec.Command(ip, "-batch", batch).Run()
			})
			check(err)
		})
		flush(mine)
		r.run("Sync-new", func() { _, err := Sync(b.Context(), ns, 77, routes...); check(err) })
		r.run("Sync-same", func() { _, err := Sync(b.Context(), ns, 77, routes...); check(err) })
		r.run("Sync-1%", func() {
			did, err := Sync(b.Context(), ns, 77, changed...)
			if check(err); did.Replaced != n/100 || did.Added+did.Deleted != 0 {
				b.Fatalf("%+v", did)
			}
		})
		flush(mine)
	}
	r.report()
}

// plain is a netlink socket that is used by system calls alone.
type plain struct {
	fd  int
	buf []byte
	seq uint32
}

func openPlain(b *testing.B, ns *netns.NS) *plain {
	p := &plain{buf: make([]byte, 1<<16)}
	_, err := netns.Do(b.Context(), ns, func(context.Context) (int, error) {
		var err error
		if p.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
			return 0, err
		}
		return 0, unix.SetsockoptInt(p.fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(p.fd) })
	return p
}

// plainRoute is what a program that wants no more would keep.
type plainRoute struct {
	dst, via           netip.Addr
	bits               int
	dev, metric, table uint32
}

func (p *plain) list(b *testing.B, f Family) int {
	p.seq++
	body := dump(afNumber(f), Filter{Table: TableMain}).Body
	if err := unix.Send(p.fd, p.message(nil, unix.RTM_GETROUTE, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, body), 0); err != nil {
		b.Fatal(err)
	}
	var routes []plainRoute
	for {
		n, err := unix.Read(p.fd, p.buf)
		if err != nil {
			b.Fatal(err)
		}
		for m := p.buf[:n]; len(m) >= 16; {
			size := binary.NativeEndian.Uint32(m)
			switch binary.NativeEndian.Uint16(m[4:]) {
			case unix.NLMSG_DONE:
				return len(routes)
			case unix.NLMSG_ERROR:
				b.Fatal("refused")
			}
			routes = append(routes, readPlain(m[16:size]))
			m = m[(size+3)&^3:]
		}
	}
}

func readPlain(m []byte) plainRoute {
	r := plainRoute{bits: int(m[1]), table: uint32(m[4])}
	for a := m[12:]; len(a) >= 4; {
		size := binary.NativeEndian.Uint16(a)
		data := a[4:size]
		switch binary.NativeEndian.Uint16(a[2:]) {
		case unix.RTA_DST:
			r.dst, _ = netip.AddrFromSlice(data)
		case unix.RTA_GATEWAY:
			r.via, _ = netip.AddrFromSlice(data)
		case unix.RTA_OIF:
			r.dev = binary.NativeEndian.Uint32(data)
		case unix.RTA_PRIORITY:
			r.metric = binary.NativeEndian.Uint32(data)
		case unix.RTA_TABLE:
			r.table = binary.NativeEndian.Uint32(data)
		}
		a = a[min(int(size+3)&^3, len(a)):]
	}
	return r
}

// add sends a hundred routes at a time and waits for the answer to the last.
func (p *plain) add(b *testing.B, routes []Route) {
	var out, body []byte
	for i := range routes {
		p.seq++
		flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		last := i%100 == 99 || i == len(routes)-1
		if last {
			flags |= unix.NLM_F_ACK
		}
		body = routes[i].appendAdd(body[:0])
		out = p.message(out, unix.RTM_NEWROUTE, flags, body)
		if !last {
			continue
		}
		if err := unix.Send(p.fd, out, 0); err != nil {
			b.Fatal(err)
		}
		n, err := unix.Read(p.fd, p.buf)
		if err != nil || n < 20 || binary.NativeEndian.Uint32(p.buf[16:]) != 0 {
			b.Fatal(n, err)
		}
		out = out[:0]
	}
}

func (p *plain) message(b []byte, typ, flags uint16, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, p.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(b, body...)
}
