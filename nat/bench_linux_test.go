package nat

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// BenchmarkSync is one Sync of many ports into an empty table.
func BenchmarkSync(b *testing.B) {
	for _, n := range []int{1000, 50000} {
		b.Run(fmt.Sprintf("ports=%d", n), func(b *testing.B) {
			ns := netnstest.New(b)
			ports := bulk(n)
			for b.Loop() {
				b.StopTimer()
				gw := open(b, ns)
				b.StartTimer()
				if err := gw.Sync(b.Context(), State{Ports: ports}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := gw.Delete(b.Context()); err != nil {
					b.Fatal(err)
				}
				gw.Close()
				b.StartTimer()
			}
		})
	}
}

// bulk are n ports of TCP and UDP, on all addresses and from 1 on.
func bulk(n int) []Port {
	ports := make([]Port, n)
	for i := range ports {
		ports[i] = tcp(fmt.Sprintf("0.0.0.0:%d", 1+i/2), "10.88.0.2:80", "bulk")
		if i%2 == 1 {
			ports[i].Proto = UDP
		}
	}
	return ports
}

// BenchmarkPublish is one more publish beside none, 1,000 and 50,000 ports, and
// beside each the batch alone: the one element, added and nothing else. They take
// turns, so that what disturbs one disturbs all; the medians are reported in
// microseconds, and as ratios to those of the empty table.
func BenchmarkPublish(b *testing.B) {
	sizes := []int{0, 1000, 50000}
	var tables []*NAT
	for _, n := range sizes {
		gw := open(b, netnstest.New(b))
		defer gw.Close()
		if err := gw.Sync(b.Context(), State{Ports: bulk(n)}); err != nil {
			b.Fatal(err)
		}
		tables = append(tables, gw)
	}
	all, one := tcp("0.0.0.0:60000", "10.88.0.2:80", "more"), tcp("10.1.1.1:60000", "10.88.0.2:80", "more")
	alone := func(gw *NAT, fn func(*nft.Batch)) error {
		c, err := gw.conn()
		if err != nil {
			return err
		}
		return c.Commit(b.Context(), gw.table, nft.BuildFunc(func(context.Context) (*nft.Batch, error) {
			batch := nft.NewBatch(gw.table)
			fn(batch)
			return batch, nil
		}))
	}
	ways := []struct {
		name        string
		add, remove func(*NAT) error
	}{
		{"all-addresses",
			func(gw *NAT) error { return gw.Publish(b.Context(), all) },
			func(gw *NAT) error { return gw.Unpublish(b.Context(), all) }},
		{"one-address",
			func(gw *NAT) error { return gw.Publish(b.Context(), one) },
			func(gw *NAT) error { return gw.Unpublish(b.Context(), one) }},
		{"batch-alone",
			func(gw *NAT) error { return alone(gw, func(b *nft.Batch) { addPorts(b, []Port{all}) }) },
			func(gw *NAT) error { return alone(gw, func(b *nft.Batch) { deleteItems(b, portItems([]Port{all})) }) }},
	}
	took := make([][]time.Duration, len(sizes)*len(ways))
	for b.Loop() {
		// In any order, because what went before leaves the caches as it likes.
		for _, at := range rand.Perm(len(took)) {
			way, gw := ways[at/len(sizes)], tables[at%len(sizes)]
			began := time.Now()
			if err := way.add(gw); err != nil {
				b.Fatal(err)
			}
			took[at] = append(took[at], time.Since(began))
			if err := way.remove(gw); err != nil {
				b.Fatal(err)
			}
		}
	}
	for w, way := range ways {
		var first float64
		for t, n := range sizes {
			typical := median(took[w*len(sizes)+t])
			if t == 0 {
				first = typical
			}
			b.ReportMetric(typical, fmt.Sprintf("us/%s-beside-%d", way.name, n))
			b.ReportMetric(typical/first, fmt.Sprintf("x/%s-beside-%d", way.name, n))
		}
	}
}

// BenchmarkPublishBesideFlows is a port on all addresses of both families,
// published and withdrawn in one call each, in a namespace with no flow, with one
// and with 50,000, none of which is the port's. Medians in microseconds.
func BenchmarkPublishBesideFlows(b *testing.B) {
	for _, n := range []int{0, 1, 50000} {
		ns := netnstest.New(b)
		gw := open(b, ns)
		defer gw.Close()
		testutil.Flows(b, ns, n)
		for _, proto := range []Proto{TCP, UDP} {
			ports := []Port{tcp("0.0.0.0:60000", "10.88.0.2:80", "more"), tcp("[::]:60000", "[fd88::2]:80", "more")}
			for i := range ports {
				ports[i].Proto = proto
			}
			b.Run(fmt.Sprintf("%v/flows=%d", proto, n), func(b *testing.B) {
				var published, withdrawn []time.Duration
				for b.Loop() {
					began := time.Now()
					if err := gw.Publish(b.Context(), ports...); err != nil {
						b.Fatal(err)
					}
					published = append(published, time.Since(began))
					began = time.Now()
					if err := gw.Unpublish(b.Context(), ports...); err != nil {
						b.Fatal(err)
					}
					withdrawn = append(withdrawn, time.Since(began))
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(published), "us/publish")
				b.ReportMetric(median(withdrawn), "us/unpublish")
			})
		}
	}
}

// median is in microseconds.
func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2].Nanoseconds()) / 1000
}
