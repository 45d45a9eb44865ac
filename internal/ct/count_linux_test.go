package ct

import (
	"math"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// isCount checks the number of flows that the kernel reports.
func isCount(t *testing.T, table Table, want int) {
	t.Helper()
	if n, err := table.count(t.Context()); n != want || err != nil {
		t.Errorf("%d flows, %v; want %d", n, err, want)
	}
}

func TestCountIsOfTheNamespace(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	_, quiet := tracked(t)
	ns, busy := tracked(t)
	send(t, ns, "127.0.0.1:53", "[::1]:53", "127.0.0.2:53")
	isCount(t, quiet, 0)
	isCount(t, busy, 3)
	if n := testutil.CountFlows(t, ns); n != 3 {
		t.Errorf("/proc has %d flows", n)
	}
	if all, err := quiet.List(t.Context(), nil); len(all) != 0 || err != nil {
		t.Errorf("%v, %v in a namespace without flows", all, err)
	}
}

// A flow is counted before its first packet has passed the rules, and not found in
// the table until it has. What stands at no flow stands so for those on their way.
func TestAFlowIsCountedBeforeItIsFound(t *testing.T) {
	t.Parallel()
	ns, table := tracked(t)
	release := holdOutput(t, ns)
	send(t, ns, "127.0.0.1:53")
	isCount(t, table, 1)
	if got := destinations(t, table); len(got) != 0 {
		t.Errorf("%v are in the table; the packet is still on its way", got)
	}
	release()
	isCount(t, table, 1)
	if got := destinations(t, table); len(got) != 1 {
		t.Errorf("%v are in the table, want one", got)
	}
}

// holdOutput holds what ns sends to port 53, behind conntrack and before it gets
// out, in queue 0 of nfnetlink_queue (linux/netfilter/nfnetlink_queue.h). release
// lets the first packet go.
func holdOutput(t *testing.T, ns *netns.NS) (release func()) {
	t.Helper()
	const (
		msgVerdict, msgConfig = 1, 2
		cfgCmd, cfgParams     = 1, 2
		verdictHdr, accept    = 2, 1
	)
	c, err := nsconn.Shared(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(msg, attr uint16, payload ...byte) {
		t.Helper()
		body := nl.AppendAttr(everything(), attr, payload)
		if err := c.Call(t.Context(), nl.Request{Type: unix.NFNL_SUBSYS_QUEUE<<8 | msg, Body: body}, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, err = testutil.Try(t, ns, "nft", "add table inet hold; add chain inet hold c { type filter hook output priority 10; }; add rule inet hold c udp dport 53 queue num 0")
	if err != nil { // a kernel without nft_queue
		testutil.Run(t, ns, "iptables", "-A", "OUTPUT", "-p", "udp", "--dport", "53", "-j", "NFQUEUE", "--queue-num", "0")
	}
	ask(msgConfig, cfgCmd, 1, 0, 0, 0)       // bind
	ask(msgConfig, cfgParams, 0, 0, 0, 0, 1) // tell of packets, without what is in them
	return func() {
		t.Helper()
		ask(msgVerdict, verdictHdr, 0, 0, 0, accept, 0, 0, 0, 1)
	}
}

func TestACountThatIsNotTold(t *testing.T) {
	t.Parallel()
	reported := nl.AppendBE32(everything(), statsEntries, 7)
	for body, want := range map[string]int{string(reported): 7, string(everything()): math.MaxInt32} {
		if n, err := decodeCount([]byte(body)); n != want || err != nil {
			t.Errorf("%x: %d, %v; want %d", body, n, err, want)
		}
	}
	if _, err := decodeCount([]byte{0, 0}); err == nil {
		t.Error("half a header is read")
	}
}
