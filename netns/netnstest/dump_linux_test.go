package netnstest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// failed is a test that has failed, and whose log and cleanups are kept.
type failed struct {
	testing.TB
	log     strings.Builder
	cleanup []func()
}

func (f *failed) Failed() bool               { return true }
func (f *failed) Cleanup(fn func())          { f.cleanup = append(f.cleanup, fn) }
func (f *failed) Logf(s string, args ...any) { fmt.Fprintf(&f.log, s+"\n", args...) }

// end runs the cleanups, the last one first.
func (f *failed) end() string {
	for len(f.cleanup) > 0 {
		last := len(f.cleanup) - 1
		fn := f.cleanup[last]
		f.cleanup = f.cleanup[:last]
		fn()
	}
	return f.log.String()
}

// command runs a command in the namespace, if it is installed.
func command(t *testing.T, ns *netns.NS, name string, args ...string) {
	t.Helper()
	if out, err := ns.Command(t.Context(), tool.Path(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// A failed test prints what its namespaces are like.
func TestFailedTestPrintsItsNamespaces(t *testing.T) {
	t.Parallel()
	NeedIPv6(t)
	tool.Path(t, "ip")
	tool.Path(t, "nft")
	f := &failed{TB: t}
	host, boxes := Bridge(f, 1)
	command(t, host.NS, "ip", "route", "add", "198.51.100.0/24", "via", "10.88.0.2", "table", "77", "metric", "5")
	command(t, host.NS, "ip", "route", "add", "blackhole", "2001:db8::/32")
	command(t, host.NS, "ip", "rule", "add", "from", "10.88.0.0/16", "fwmark", "1", "table", "77", "priority", "9")
	command(t, host.NS, "ip", "neigh", "add", "10.88.0.9", "dev", "br0", "lladdr", "02:00:00:00:00:09")
	command(t, host.NS, "nft", `
		table inet filter {
			map ports { type inet_service : ipv4_addr; elements = { 80 comment "web" : 10.88.0.2 } }
			set nets { type ipv4_addr . ifname; flags interval; elements = { 10.88.0.0/16 . "br0" } }
			set none { type ether_addr; }
			chain in { type filter hook input priority 5; policy drop; iif "br0" counter accept; tcp dport { 80, 443 } drop; }
			chain out { type nat hook prerouting priority dstnat; ip daddr 10.88.0.1 tcp dport 8080 dnat ip to 10.88.0.2:80; }
		}`)
	ln, err := host.Listen(t.Context(), "tcp", "10.88.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pc, err := boxes[0].ListenPacket(t.Context(), "udp", "[fd88::2]:53")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	log := f.end()
	for _, line := range []string{
		"the namespaces of the test:\nhost\n", "\n  br0 (bridge)  10.88.0.1/16 fd88::1/64\n    box1 (veth)  --- boxes[0] eth0\n",
		"netns net:[", "], host:\n", "], boxes[0]:\n", "links:", "1 lo up (unknown) mtu 65536",
		"br0 bridge up (up) mtu 1500", "box1 veth up (up) mtu 1500", "peer in nsid 0 master br0",
		"10.88.0.1/16 on br0", "fd88::1/64 on br0", "::1/128 on lo",
		"198.51.100.0/24 via 10.88.0.2 on br0 metric 5 in table 77", "blackhole 2001:db8::/32",
		"0.0.0.0/0 via 10.88.0.1 on eth0", "::/0 via fd88::1 on eth0",
		"9 IPv4 from 10.88.0.0/16 with mark 0x1: table 77",
		"10.88.0.9 on br0: 02:00:00:00:00:09, permanent",
		"table inet filter {", "\tchain in {", "\t\ttype filter hook input priority filter + 5; policy drop;",
		`iif "br0" counter packets 0 bytes 0 accept`, "tcp dport { 80, 443 } drop", "ip daddr 10.88.0.1 tcp dport 8080 dnat ip to 10.88.0.2:80",
		"map ports { type inet_service : ipv4_addr; elements = {", `80 comment "web" : 10.88.0.2`, `10.88.0.0/16 . "br0"`,
		"set none { type ether_addr; }",
		"tcp listening from 10.88.0.1:80 to 0.0.0.0:0", "udp6 closed from [fd88::2]:53 to [::]:0",
	} {
		if !strings.Contains(log, line) {
			t.Errorf("the log lacks %q", line)
		}
	}
	if t.Failed() {
		t.Log(log)
	}
	if strings.Count(log, ": table ") != 1 {
		t.Errorf("other rules than the test's own are printed:\n%s", log)
	}
	if strings.Contains(log, "invalid") || strings.Contains(log, "malformed") {
		t.Errorf("something was not read right:\n%s", log)
	}
}

// A passed test prints nothing.
type passed struct{ failed }

func (*passed) Failed() bool { return false }

func TestPassedTestPrintsNothing(t *testing.T) {
	t.Parallel()
	p := &passed{failed{TB: t}}
	Pair(p)
	if log := p.end(); log != "" {
		t.Errorf("it prints %s", log)
	}
}

// dumpAnything makes lines of attributes that no kernel sent.
func dumpAnything(b []byte) {
	prefixOf(unix.AF_INET, b, 200)
	address(b)
}
