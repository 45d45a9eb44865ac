//go:build linux

package command

import (
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/internal/testutil"
)

// families reads metrics as Prometheus does.
func families(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	all, err := p.TextToMetricFamilies(bytes.NewReader([]byte(text)))
	must(t, err)
	return all
}

// metric is a value of the agent's metrics; 0 if it has none with those labels, NaN without an answer.
func metric(t *testing.T, n *node, name string, labels map[string]string) float64 {
	t.Helper()
	code, text := n.get("/metrics")
	if code == 0 {
		return math.NaN() // it has just been started
	}
	family := families(t, text)[name]
	if family == nil {
		t.Fatalf("%d, and no metric %s in\n%s", code, name, text)
	}
	for _, m := range family.Metric {
		matches := len(m.Label) == len(labels)
		for _, l := range m.Label {
			matches = matches && labels[l.GetName()] == l.GetValue()
		}
		if matches {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	return 0
}

// What the metrics say is what the kernel and the store have.
func TestMetricsAreTheTruth(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{3}})
	etcd := value(l.StartStore(t.Context(), l.Hosts[0]))(t)
	must(t, etcd.Kill())
	a := start(t, l.Hosts[0], append(on(etcd), "-metrics", "198.18.0.2:9469")...)
	a.says(503, "the store is away")
	state := func(name string) map[string]string { return map[string]string{"state": name} }
	done := func(name string) map[string]string { return map[string]string{"done": name} }
	want := func(name string, labels map[string]string, n float64) {
		t.Helper()
		poll(t, name, func() (bool, string) {
			got := metric(t, a, "boxwire_fleet_"+name, labels)
			_, text := a.get("/metrics")
			return got == n, text
		})
	}
	want("ready", nil, 0)
	want("store_connected", nil, 0)
	must(t, etcd.Restart(t.Context()))
	a.ready(0)
	want("ready", nil, 1)
	want("store_connected", nil, 1)
	want("peers", state("up"), 0)
	added := metric(t, a, "boxwire_fleet_kernel_changes_total", done("route_added"))
	if routes := strings.Count(owned(t, l.Hosts[0]), "\n"); int(added) != routes {
		t.Errorf("%v routes were added, and the kernel has %d", added, routes)
	}

	b, c := start(t, l.Hosts[1], on(etcd)...), start(t, l.Hosts[2], on(etcd)...)
	a.ready(2)
	b.ready(2)
	c.ready(2)
	want("peers", state("up"), 2)
	want("peers", state("down"), 0)
	want("kernel_changes_total", done("route_added"), added+4)
	want("skipped", nil, 0)
	// Somebody deletes a route, which comes back.
	testutil.Run(t, l.Hosts[0].NS, "ip", "route", "del", b.ready(2).Prefixes[0].String())
	want("kernel_changes_total", done("route_added"), added+5)
	// A node dies.
	must(t, c.Kill())
	must(t, l.Hosts[2].Cut(t.Context()))
	want("peers", state("down"), 1)
	want("peers", state("up"), 1)
	want("kernel_changes_total", done("route_replaced"), 2)
	if failures := metric(t, a, "boxwire_fleet_reconcile_failures_total", nil); failures != 0 {
		t.Errorf("%v comparisons failed", failures)
	}
	// The kernel refuses: another's link has the name.
	testutil.Run(t, l.Hosts[0].NS, "ip", "link", "set", "fl0", "alias", "mine")
	testutil.Run(t, l.Hosts[0].NS, "ip", "link", "set", "fl0", "mtu", "1300")
	a.says(503, "link fl0")
	want("ready", nil, 0)
	testutil.Run(t, l.Hosts[0].NS, "ip", "link", "set", "fl0", "alias", "boxwire-fleet fl0")
	a.ready(1)
	want("ready", nil, 1)

	// Other machines get the metrics and the readiness, and nothing else.
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return l.Hosts[1].NS.Dial(ctx, network, addr)
		},
	}}
	for path, code := range map[string]int{"/metrics": 200, "/ready": 200, "/state": 404, "/explain?peer=host2": 404, "/": 404} {
		resp, err := client.Get("http://198.18.0.2:9469" + path)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		must(t, err)
		if resp.StatusCode != code {
			t.Errorf("%s is %d %q, want %d", path, resp.StatusCode, body, code)
		}
		if path == "/metrics" && families(t, string(body))["boxwire_fleet_ready"] == nil {
			t.Errorf("the metrics are\n%s", body)
		}
	}
	// A scrape that asks for the compressed or the other text form is answered in one that the library reads.
	for name, family := range families(t, value(scrape(a))(t)) {
		if family.GetHelp() == "" || !strings.HasPrefix(name, "boxwire_fleet_") {
			t.Errorf("metric %s has the help %q", name, family.GetHelp())
		}
	}
}

func scrape(n *node) (string, error) {
	_, text := n.get("/metrics")
	return text, nil
}

// owned are the fleet's routes of a host, a line each.
func owned(t *testing.T, h *lab.Host) string {
	t.Helper()
	return testutil.Run(t, h.NS, "ip", "route", "show", "proto", "201") + testutil.Run(t, h.NS, "ip", "-6", "route", "show", "proto", "201")
}
