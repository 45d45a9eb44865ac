package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/boxtest"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// zone is what the resolver outside knows.
func zone() map[string][]string {
	return map[string][]string{
		"example.org":      {"example.org. 300 A 198.51.100.10", "example.org. 300 AAAA 2001:db8:1::10"},
		"www.example.org":  {"www.example.org. 300 CNAME a.cdn.test.", "a.cdn.test. 300 CNAME b.cdn.test.", "b.cdn.test. 300 A 198.51.100.11", "b.cdn.test. 300 AAAA 2001:db8:1::11"},
		"short.test":       {"short.test. 1 A 198.51.100.10"},
		"evil.test":        {"evil.test. 300 A 198.51.100.11"},
		"metadata.test":    {"metadata.test. 300 A 169.254.169.254", "metadata.test. 300 A 127.0.0.1", "metadata.test. 300 A 198.51.100.10"},
		"inside.test":      {"inside.test. 300 A 10.89.0.1"},
		"unasked.test":     {"unasked.test. 300 A 198.51.100.10", "other.test. 300 A 198.51.100.11"},
		"deep.sub.dom.org": {"deep.sub.dom.org. 300 A 198.51.100.11"},
		"dom.org":          {"dom.org. 300 A 198.51.100.10"},
	}
}

func TestABoxReachesWhatIsAllowedAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	s := w.start(t, "-allow", "example.org:443", "-allow", "198.51.100.11/32:80", "-allow", "udp 198.51.100.11:443", "-allow", "tcp host port 8080")
	s.want("tcp 198.51.100.10:443", "failed") // nothing has asked for the name yet
	s.want("tcp example.org:443", "ok")
	s.want("tcp example.org:80", "failed")
	s.want("udp example.org:443", "failed")
	s.want("tcp 198.51.100.10:443", "ok")
	s.want("tcp 198.51.100.11:80", "ok")
	s.want("tcp 198.51.100.11:443", "failed")
	s.want("udp 198.51.100.11:443", "ok")
	s.want("tcp 203.0.113.2:80", "failed")

	// The host: by the address that the box knows, and by the others.
	for _, host := range []string{"10.89.0.1", "203.0.113.1"} {
		s.want("tcp "+host+":8080", "ok")
		s.want("tcp "+host+":80", "failed")
	}
	// The resolver outside, directly.
	s.want("dns example.org A udp 203.0.113.2:53", "failed")
	s.want("dns example.org A tcp 203.0.113.2:53", "failed")

	s.want("dns evil.test A", "ok REFUSED 0")
	s.want("dns evil.test A", "ok REFUSED 0")
	s.want("dns sub.example.org A tcp", "ok REFUSED 0")
	s.want("lookup evil.test", "failed")
	if w.asked["evil.test"]+w.asked["sub.example.org"] > 0 {
		t.Errorf("the resolver was asked for refused names: %v", w.asked)
	}
	_, stderr := s.end()
	for _, want := range []string{`name "evil.test", `, `name "sub.example.org", 1 query`,
		"denied: tcp 198.51.100.11:443, 1 packet\n", "denied: udp 198.51.100.10:443, 1 packet\n", "denied: tcp 10.89.0.1:80, 1 packet\n", "denied: tcp 203.0.113.1:80, 1 packet\n",
		"denied: udp 203.0.113.2:53, 1 packet\n",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("the report lacks %q: %s", want, stderr)
		}
	}
	w.empty(t)
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	w := newWorld(t, zone())
	s := w.start(t, "-allow", "example.org:443", "-allow", "[2001:db8:1::11]:80")
	s.want("tcp [2001:db8:1::10]:443", "failed")
	s.want("dns example.org AAAA", "ok NOERROR 1")
	s.want("tcp [2001:db8:1::10]:443", "ok")
	s.want("tcp [2001:db8:1::10]:80", "failed")
	s.want("tcp [2001:db8:1::11]:80", "ok")
	s.want("tcp [2001:db8:1::11]:443", "failed")
	s.want("tcp [2001:db8::1]:80", "failed") // the host
	s.want("tcp [fd89::1]:80", "failed")
	s.want("lookup example.org", "ok 198.51.100.10 2001:db8:1::10")
	if _, stderr := s.end(); !strings.Contains(stderr, "denied: tcp [2001:db8:1::10]:80, 1 packet\n") {
		t.Errorf("the report: %s", stderr)
	}
}

// The policy is about the box's addresses. From others nothing passes.
func TestABoxSendsFromNoOtherAddress(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	w := newWorld(t, zone())
	const server = "[2001:db8:1::11]:443"
	count := serveUDP(t, w.outside.NS, server)
	s := w.start(t, "-allow", "udp "+server)
	s.want("from fd89::77 "+server, "ok") // as far as it knows
	s.want("udp "+server, "ok")           // a later packet has come
	if n := count.Load(); n != 1 {
		t.Errorf("%d packets came, want 1", n)
	}
}

func TestCNAMEsAreFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	s := w.start(t, "-allow", "www.example.org:443")
	s.want("dns b.cdn.test A", "ok REFUSED 0")
	s.want("tcp 198.51.100.11:443", "failed")
	s.want("dns www.example.org A", "ok NOERROR 3")
	s.want("tcp 198.51.100.11:443", "ok")
	s.want("tcp www.example.org:443", "ok")
}

func TestSubdomains(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	s := w.start(t, "-allow", "*.dom.org:443")
	s.want("dns dom.org A", "ok REFUSED 0")
	s.want("dns notdom.org A", "ok REFUSED 0")
	s.want("dns DEEP.sub.Dom.org A", "ok NOERROR 1")
	s.want("tcp deep.sub.dom.org:443", "ok")
	s.want("dns missing.dom.org A", "ok NXDOMAIN 0")
}

// Who answers for a name does not open what is the host's, nor what the name does not lead to.
func TestAnAnswerOpensOnlyWhatItIsFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	s := w.start(t, "-allow", "metadata.test:80", "-allow", "inside.test:80", "-allow", "unasked.test:80")
	s.want("dns metadata.test A", "ok NOERROR 1")
	s.want("tcp 169.254.169.254:80", "failed")
	s.want("tcp 198.51.100.10:80", "ok")
	s.want("dns inside.test A", "ok NOERROR 1")
	s.want("tcp 10.89.0.1:80", "failed")
	s.want("dns unasked.test A", "ok NOERROR 1")
	s.want("tcp 198.51.100.11:80", "failed")
}

func TestAnAnswerOfManyAddressesIsCut(t *testing.T) {
	t.Parallel()
	all := []string{}
	for i := range 200 {
		all = append(all, fmt.Sprintf("many.test. 300 A 198.51.100.%d", i+1))
	}
	w := newWorld(t, map[string][]string{"many.test": all})
	s := w.start(t, "-allow", "many.test:80")
	s.want("dns many.test A", "ok NOERROR 30 truncated") // what a packet of 512 bytes holds
	s.want("dns many.test A tcp", "ok NOERROR 32")
	s.want("tcp 198.51.100.10:80", "ok")
}

func TestAGrantEndsWithItsLifetime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	s := w.start(t, "-min-ttl", "2s", "-allow", "short.test:443", "-allow", "example.org:443")
	s.want("hold short.test:443", "ok")
	s.want("closed 198.51.100.10:443", "ok")
	s.want("held", "ok") // what began in time goes on
	s.want("tcp example.org:443", "ok")
	s.want("tcp 198.51.100.10:443", "ok") // 300 seconds
}

// What another program takes out of the kernel comes back, with what names have opened.
func TestAFlushedRulesetComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	s := w.start(t, "-allow", "example.org:443")
	s.want("tcp example.org:443", "ok")
	testutil.Run(t, w.host.NS, "nft", "flush", "ruleset")
	boxtest.Within(t, func() string {
		if got := s.do("tcp 198.51.100.10:443"); got != "ok" {
			return got
		}
		return ""
	})
	s.want("tcp 198.51.100.10:80", "failed")
	s.want("tcp 203.0.113.1:80", "failed")
}

func TestSeveralSandboxesOfAHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	a := w.start(t, "-allow", "example.org:443")
	b := w.start(t, "-allow", "0.0.0.0/0:80", "-allow", "icmp 0.0.0.0/0")
	a.want("tcp example.org:443", "ok")
	b.want("tcp 198.51.100.10:443", "failed")
	b.want("tcp 198.51.100.10:80", "ok")
	b.want("tcp 10.89.0.1:80", "failed") // a's gateway
	b.want("tcp 10.89.0.5:80", "failed") // its own
	a.end()
	b.want("tcp 198.51.100.10:80", "ok")
	b.end()
	w.empty(t)
}

func TestStatusAndSignals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	if status, out, stderr := w.once(t, "-allow", "example.org:443", "-dns", w.resolver, "sh", "-c", "cat /etc/resolv.conf; exit 7"); status != 7 || out != resolvText || stderr != "" {
		t.Errorf("%d, %q, %q", status, out, stderr)
	}
	if status, _, _ := w.once(t, "sh", "-c", "kill -KILL $$"); status != statusSignal+9 {
		t.Errorf("status %d", status)
	}
	if status, _, stderr := w.once(t, "/nowhere/at/all"); status != statusUnknown || !strings.Contains(stderr, "/nowhere/at/all") {
		t.Errorf("%d, %q", status, stderr)
	}
	if status, _, stderr := w.once(t, "/etc/hostname"); status != statusCannot {
		t.Errorf("%d, %q", status, stderr)
	}
	s := w.start(t)
	s.cmd.Process.Signal(unix.SIGTERM)
	s.want("terminated", "ok")
	fmt.Fprintln(s.in, "exit 9")
	if status, stderr := s.end(); status != 9 || stderr != "" {
		t.Errorf("%d, %q", status, stderr)
	}
	w.empty(t)
}

// The command cannot go where the policy does not hold, root as it may be.
func TestTheCommandDoesNotGetOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	s := w.start(t)
	s.want(fmt.Sprint("enter ", s.cmd.Process.Pid), "failed")
	status, out, _ := w.once(t, "sh", "-c", "ip link set eth0 down || ip addr add 203.0.113.9/24 dev eth0 || grep -i -e CapBnd -e NoNewPrivs /proc/self/status")
	if want := "CapBnd:\t00000000000024fb\nNoNewPrivs:\t1\n"; status != 0 || out != want {
		t.Errorf("%d, %q, want %q", status, out, want)
	}
}

func TestWhatTheCommandLeavesRunningEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	s := w.start(t)
	s.want("child", "ok")
	pids := pidsIn(t, w.host.NS, "sandbox0")
	if len(pids) != 2 {
		t.Errorf("processes %v", pids)
	}
	s.end()
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	w.empty(t)
}

func TestRootless(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	s := w.start(t, "-rootless", "-allow", "example.org:443", "-allow", "tcp host port 8080")
	s.want("dns evil.test A", "ok REFUSED 0")
	s.want("dns example.org A", "ok SERVFAIL 0") // its host has no way to the resolver
	s.want("tcp 203.0.113.1:80", "failed")
	// A service on the host that the sandbox has made.
	host := rootlessHost(t, s)
	serve(t, host, ":80", ":8080")
	s.want("tcp 10.89.0.1:8080", "ok")
	s.want("tcp 10.89.0.1:80", "failed")
	fmt.Fprintln(s.in, "exit 5")
	status, stderr := s.end()
	if status != 5 || !strings.Contains(stderr, `name "evil.test", 1 query`) || !strings.Contains(stderr, "denied: tcp 10.89.0.1:80, 1 packet") {
		t.Errorf("%d, %q", status, stderr)
	}
	w.empty(t)
}

func TestMainWithoutACommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if status, out, stderr := w.once(t, "-allow", "example.org"); status != statusOurs || out != "" || !strings.Contains(stderr, "lacks a port") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%d, %q, %q", status, out, stderr)
	}
	if status, out, _ := w.once(t, "-h"); status != 0 || !strings.Contains(out, "-allow") {
		t.Errorf("%d, %q", status, out)
	}
}
