package agent

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the agent counts, in Prometheus' form.
type metrics struct {
	registry   *prometheus.Registry
	peers      *prometheus.GaugeVec
	ready      prometheus.Gauge
	connected  prometheus.Gauge
	revision   prometheus.Gauge
	skipped    prometheus.Gauge
	changes    *prometheus.CounterVec
	reconciles prometheus.Counter
	failures   prometheus.Counter
	duration   prometheus.Histogram
}

// changesDone are the kinds of changes of the kernel.
var changesDone = []string{"route_added", "route_replaced", "route_deleted", "peer_added", "peer_changed", "peer_deleted"}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "boxwire_fleet", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "boxwire_fleet", Name: name, Help: help})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		peers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "boxwire_fleet", Name: "peers", Help: "Nodes of the fleet but this one, by state: up or down.",
		}, []string{"state"}),
		ready:     gauge("ready", "1 if the kernel has what the last complete snapshot asks for."),
		connected: gauge("store_connected", "1 if the store answers."),
		revision:  gauge("store_revision", "Revision of the store that the kernel is in line with."),
		skipped:   gauge("skipped", "Keys of the store and peers that are ignored; the log names the keys, and /state the peers."),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "boxwire_fleet", Name: "kernel_changes_total", Help: "Routes and links changed in the kernel, by what was done.",
		}, []string{"done"}),
		reconciles: counter("reconciles_total", "Comparisons of the kernel with the snapshot."),
		failures:   counter("reconcile_failures_total", "Comparisons that ended with an error."),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "boxwire_fleet", Name: "reconcile_seconds", Help: "Time of a comparison with its changes.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
	// A value that is not there cannot be compared with the one after the first change.
	for _, is := range []string{"up", "down"} {
		m.peers.WithLabelValues(is)
	}
	for _, done := range changesDone {
		m.changes.WithLabelValues(done)
	}
	m.registry.MustRegister(m.peers, m.ready, m.connected, m.revision, m.skipped, m.changes, m.reconciles, m.failures, m.duration)
	return m
}
