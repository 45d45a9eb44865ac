package route

import (
	"strconv"
	"time"
)

// Metrics are properties of the path that a route describes (RTA_METRICS, RTAX_*;
// ip-route(8)). A zero field leaves the choice to the kernel.
type Metrics struct {
	MTU        uint32        // bytes of the largest packet
	AdvMSS     uint32        // the maximum segment size that TCP advertises, in bytes
	Window     uint32        // the largest window that TCP advertises, in bytes
	RTT        time.Duration // the first estimate of the round trip, in steps of 125 µs
	RTTVar     time.Duration // the first estimate of its variance, in steps of 250 µs
	SSThresh   uint32        // the first slow-start threshold, in segments
	CWnd       uint32        // the limit of the congestion window, in segments; takes LockCWnd
	InitCWnd   uint32        // the first congestion window, in segments
	InitRWnd   uint32        // the first receive window, in segments
	HopLimit   uint32        // the TTL or hop limit of packets, up to 255
	Reordering uint32        // the most reordering that TCP does not take for loss, in segments
	Features   Features      // what TCP tries on the path
	RTOMin     time.Duration // the shortest retransmission time-out of TCP, in milliseconds

	QuickAck         bool   // TCP acknowledges at once
	FastOpenNoCookie bool   // TCP Fast Open needs no cookie
	Congestion       string // the congestion control algorithm of TCP, such as "bbr"

	Lock Locks // the metrics that the kernel may not change, e.g. by path MTU discovery
}

// Features is a set of TCP features (RTAX_FEATURE_*).
type Features uint32

// The features that the kernel knows.
const (
	FeatureECN    Features = 1 << 0 // explicit congestion notification
	FeatureUsecTS Features = 1 << 4 // timestamps in microseconds (>= 6.7)
)

// Locks is a set of metrics: 1 << RTAX_*.
type Locks uint32

// The metrics that can be locked.
const (
	LockMTU        Locks = 1 << 2
	LockWindow     Locks = 1 << 3
	LockRTT        Locks = 1 << 4
	LockRTTVar     Locks = 1 << 5
	LockSSThresh   Locks = 1 << 6
	LockCWnd       Locks = 1 << 7
	LockAdvMSS     Locks = 1 << 8
	LockReordering Locks = 1 << 9
	LockHopLimit   Locks = 1 << 10
	LockInitCWnd   Locks = 1 << 11
	LockRTOMin     Locks = 1 << 13
	LockInitRWnd   Locks = 1 << 14
	LockQuickAck   Locks = 1 << 15
	LockCongestion Locks = 1 << 16
)

// The attributes inside RTA_METRICS that are not in the table of metrics.
const (
	rtaxLock    = 1
	rtaxCCAlgo  = 16
	rtaxMetrics = 18 // one more than the last one known here
)

// metrics are those that travel as 32 bits: the attribute's number, its name in
// ip-route(8), where it is kept and what one step of it is.
var metrics = []struct {
	attr     uint16
	name     string
	number   func(*Metrics) *uint32
	duration func(*Metrics) *time.Duration
	flag     func(*Metrics) *bool
	step     time.Duration
}{
	{attr: 2, name: "mtu", number: func(m *Metrics) *uint32 { return &m.MTU }},
	{attr: 3, name: "window", number: func(m *Metrics) *uint32 { return &m.Window }},
	{attr: 4, name: "rtt", duration: func(m *Metrics) *time.Duration { return &m.RTT }, step: time.Millisecond / 8},
	{attr: 5, name: "rttvar", duration: func(m *Metrics) *time.Duration { return &m.RTTVar }, step: time.Millisecond / 4},
	{attr: 6, name: "ssthresh", number: func(m *Metrics) *uint32 { return &m.SSThresh }},
	{attr: 7, name: "cwnd", number: func(m *Metrics) *uint32 { return &m.CWnd }},
	{attr: 8, name: "advmss", number: func(m *Metrics) *uint32 { return &m.AdvMSS }},
	{attr: 9, name: "reordering", number: func(m *Metrics) *uint32 { return &m.Reordering }},
	{attr: 10, name: "hoplimit", number: func(m *Metrics) *uint32 { return &m.HopLimit }},
	{attr: 11, name: "initcwnd", number: func(m *Metrics) *uint32 { return &m.InitCWnd }},
	{attr: 12, name: "features", number: func(m *Metrics) *uint32 { return (*uint32)(&m.Features) }},
	{attr: 13, name: "rto_min", duration: func(m *Metrics) *time.Duration { return &m.RTOMin }, step: time.Millisecond},
	{attr: 14, name: "initrwnd", number: func(m *Metrics) *uint32 { return &m.InitRWnd }},
	{attr: 15, name: "quickack", flag: func(m *Metrics) *bool { return &m.QuickAck }},
	{attr: 17, name: "fastopen_no_cookie", flag: func(m *Metrics) *bool { return &m.FastOpenNoCookie }},
}

// value returns metric i as the kernel counts it; 0 is not set.
func (m *Metrics) value(i int) uint32 {
	d := &metrics[i]
	switch {
	case d.duration != nil:
		return uint32(*d.duration(m) / d.step)
	case d.flag != nil:
		if *d.flag(m) {
			return 1
		}
		return 0
	}
	return *d.number(m)
}

// setValue is the reverse of value.
func (m *Metrics) setValue(i int, v uint32) {
	d := &metrics[i]
	switch {
	case d.duration != nil:
		*d.duration(m) = time.Duration(v) * d.step
	case d.flag != nil:
		*d.flag(m) = v != 0
	default:
		*d.number(m) = v
	}
}

// text returns metric i as ip-route(8) writes it.
func (m *Metrics) text(i int) string {
	d := &metrics[i]
	switch {
	case d.duration != nil:
		return strconv.FormatFloat(float64(*d.duration(m))/float64(time.Millisecond), 'f', -1, 64) + "ms"
	case d.attr == 12:
		return "0x" + strconv.FormatUint(uint64(m.Features), 16)
	}
	return strconv.FormatUint(uint64(m.value(i)), 10)
}

func (m *Metrics) equal(o *Metrics) bool {
	var a, b Metrics
	if m != nil {
		a = *m
	}
	if o != nil {
		b = *o
	}
	return a == b
}
