package browser

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/memory"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// BenchmarkMapEvent measures how long a box that comes takes to the page: from the call that wires it
// until it is in the document, and until the frame after that. It runs best with -benchtime 200x.
func BenchmarkMapEvent(b *testing.B) {
	for _, boxes := range []int{10, 300} {
		b.Run(fmt.Sprint("boxes=", boxes), func(b *testing.B) {
			m := newMachine(b)
			for i := range boxes {
				m.box(fmt.Sprint("box", i))
			}
			x := open(b, serve(b, "127.0.0.1:0"))
			var inDocument, drawn []float64
			for b.Loop() {
				// The first of all, so that it is never among those that are folded.
				one := m.space(fmt.Sprint("a", m.made))
				began := float64(one.plug().UnixMicro()) / 1000
				wire := quote(fmt.Sprintf("wire-%d-%d", m.host.ID().Ino, one.port.Index))
				x.wait(`shown[` + wire + `]?.[1]`)
				at := get[[]float64](x, `shown[`+wire+`]`)
				inDocument, drawn = append(inDocument, at[0]-began), append(drawn, at[1]-began)
				one.remove()
				x.wait(`!` + in(one.key()))
				time.Sleep(100 * time.Millisecond) // each change is for itself, and not the tail of another
			}
			report(b, "document", inDocument)
			report(b, "drawn", drawn)
		})
	}
}

// report reports the median and the 95th percentile of times in milliseconds.
func report(b *testing.B, what string, times []float64) {
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2], "ms-"+what+"-median")
	b.ReportMetric(times[len(times)*95/100], "ms-"+what+"-p95")
}

// BenchmarkMapMemory measures how long the page of a machine with 1,000 boxes takes to open, and how much
// the memory of the page and the program grows while the machine changes ten times a second. It runs
// best with -benchtime 600x, which is a minute.
func BenchmarkMapMemory(b *testing.B) {
	const boxes = 1000
	m := newMachine(b)
	for i := range boxes {
		m.box(fmt.Sprint("box", i))
	}
	p := serve(b, "127.0.0.1:0")
	x := open(b, p)
	x.wait(`document.querySelector("#counts").textContent.startsWith("1,001 namespaces")`)
	x.do(chromedp.Reload()) // the first time also waits for the program's first look at the machine
	x.wait(`document.querySelector("#counts").textContent.startsWith("1,001 namespaces")`)
	x.wait(`opened`)
	opened := get[float64](x, `opened`)
	x.click("#" + m.boxes[0].key() + " text") // with the panel open, and its curves
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	changes := 0
	change := func() {
		<-tick.C
		// A box of those that are drawn has one address more or less.
		eth0 := linkOf(m, m.boxes[changes/2%20], "eth0")
		extra := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, 0, byte(changes / 2 % 200)}), 32)
		if changes%2 == 0 {
			m.must(eth0.AddPrefixes(b.Context(), extra))
		} else {
			m.must(eth0.DeleteAddrs(b.Context(), extra))
		}
		changes++
	}
	for range 650 { // more than a minute: what the page keeps, it has as much of as it keeps at all
		change()
	}
	before := footprint(x)
	var resident []float64
	for b.Loop() {
		change()
		resident = append(resident, p.resident())
	}
	after := footprint(x)
	b.ReportMetric(opened, "ms-open")
	for i, what := range []string{"heap", "nodes"} {
		b.ReportMetric(before[i], what)
		b.ReportMetric(100*(after[i]/before[i]-1), what+"-growth-%")
	}
	// The memory of the program goes up and down with its garbage: the highest points are compared.
	half := len(resident) / 2
	first, second := slices.Max(resident[:max(half, 1)]), slices.Max(resident[half:])
	b.ReportMetric(second, "program")
	b.ReportMetric(100*(second/first-1), "program-growth-%")
	if n := get[int](x, `document.querySelector("#log ol").children.length`); n == 0 || n > 100 {
		b.Errorf("the page tells of %d changes", n)
	}
}

// footprint is the heap of the page in bytes, and the number of its nodes.
func footprint(x *tab) [2]float64 {
	x.Helper()
	for range 3 { // what the first leaves because something was at work, the next ones take
		if _, err := chromedp.Call(x.ctx, heapprofiler.CollectGarbage, cdp.Empty{}); err != nil {
			x.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	heap, err := chromedp.Call(x.ctx, runtime.GetHeapUsage, cdp.Empty{})
	if err != nil {
		x.Fatal(err)
	}
	nodes, err := chromedp.Call(x.ctx, memory.GetDOMCounters, cdp.Empty{})
	if err != nil {
		x.Fatal(err)
	}
	return [2]float64{heap.UsedSize, float64(nodes.Nodes)}
}

// resident is the memory of the program in bytes (proc(5), VmRSS).
func (p *program) resident() float64 {
	p.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kilobytes, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		p.Fatal(err)
	}
	return 1024 * kilobytes
}
