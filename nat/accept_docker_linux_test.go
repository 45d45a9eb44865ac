package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// dockerRules are the filter rules of Docker 20.10 with the networks br1 and, made
// with --internal, in0, and a published port of 10.89.0.3, in the words of
// iptables. The names of the addresses stand for those of a family.
const dockerRules = `
	-P FORWARD DROP
	-N DOCKER
	-N DOCKER-ISOLATION-STAGE-1
	-N DOCKER-ISOLATION-STAGE-2
	-N DOCKER-USER
	-A FORWARD -j DOCKER-USER
	-A FORWARD -j DOCKER-ISOLATION-STAGE-1
	-A FORWARD -o br1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
	-A FORWARD -o br1 -j DOCKER
	-A FORWARD -i br1 ! -o br1 -j ACCEPT
	-A FORWARD -i br1 -o br1 -j ACCEPT
	-A DOCKER -d PUBLISHED ! -i br1 -o br1 -p tcp -m tcp --dport 80 -j ACCEPT
	-A DOCKER-ISOLATION-STAGE-1 ! -s INTERNAL -o in0 -j DROP
	-A DOCKER-ISOLATION-STAGE-1 ! -d INTERNAL -i in0 -j DROP
	-A DOCKER-ISOLATION-STAGE-1 -i br1 ! -o br1 -j DOCKER-ISOLATION-STAGE-2
	-A DOCKER-ISOLATION-STAGE-1 -j RETURN
	-A DOCKER-ISOLATION-STAGE-2 -o br1 -j DROP
	-A DOCKER-ISOLATION-STAGE-2 -j RETURN
	-A DOCKER-USER -j RETURN`

// dockerHost is a topology beside Docker: br1 is one of its bridges, with an
// unpublished container at 10.89.0.2 (other), and in0 an internal network with one
// at 10.90.0.2.
type dockerHost struct {
	topology
	inner *netns.NS
}

func newDockerHost(t *testing.T) dockerHost {
	t.Helper()
	for _, tool := range []string{"iptables-nft", "ip6tables-nft"} {
		testutil.Witness(t, tool)
	}
	d := dockerHost{newTopology(t), netnstest.New(t)}
	ip(t, d.host, fmt.Sprintf(`
		link add in0 type bridge
		link add inn0 type veth peer name eth0 netns %d
		link set inn0 master in0 up
		link set in0 up
		addr add 10.90.0.1/16 dev in0
		addr add fd90::1/64 dev in0 nodad`, standIn(t, d.inner)))
	ip(t, d.inner, `
		link set eth0 up
		addr add 10.90.0.2/16 dev eth0
		addr add fd90::2/64 dev eth0 nodad
		route add default via 10.90.0.1
		route add ::/0 via fd90::1`)
	for _, ns := range []*netns.NS{d.box, d.other, d.inner, d.outside} {
		serve(t, ns, ":80")
	}
	// Docker makes the host a router.
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := d.host.SetSysctl(t.Context(), name, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.gw.Publish(t.Context(), tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web")); err != nil {
		t.Fatal(err)
	}
	d.waitReady(t)
	return d
}

// rules runs the lines with the iptables of both families.
func (d dockerHost) rules(t *testing.T, lines string) {
	t.Helper()
	for tool, names := range map[string]*strings.Replacer{
		"iptables-nft":  strings.NewReplacer("PUBLISHED", "10.89.0.3/32", "INTERNAL", "10.90.0.0/16"),
		"ip6tables-nft": strings.NewReplacer("PUBLISHED", "fd89::3/128", "INTERNAL", "fd90::/64"),
	} {
		for line := range strings.Lines(lines) {
			if args := strings.Fields(names.Replace(line)); len(args) > 0 {
				testutil.Run(t, d.host, tool, args...)
			}
		}
	}
}

// ways are the attempts of each kind: open says whether AcceptForward was called.
func (d dockerHost) ways(open bool) []attempt {
	if !open {
		return []attempt{
			{"box, out", d.box, TCP, "203.0.113.9:80", none}, {"box, out", d.box, TCP, "[2001:db8:1::9]:80", none},
			{"outside, in", d.outside, TCP, "203.0.113.1:8080", none}, {"outside, in", d.outside, TCP, "[2001:db8:1::1]:8080", none},
			{"outside, host", d.outside, TCP, "203.0.113.1:1", "203.0.113.9"},
		}
	}
	return []attempt{
		{"box, out", d.box, TCP, "203.0.113.9:80", "203.0.113.1"}, {"box, out", d.box, TCP, "[2001:db8:1::9]:80", "2001:db8:1::1"},
		{"outside, in", d.outside, TCP, "203.0.113.1:8080", "203.0.113.9"}, {"outside, in", d.outside, TCP, "[2001:db8:1::1]:8080", "2001:db8:1::9"},
		{"container, in", d.other, TCP, "203.0.113.1:8080", "10.89.0.2"}, {"container, in", d.other, TCP, "[2001:db8:1::1]:8080", "fd89::2"},
		// What is the engine's to open stays closed.
		{"box, to an unpublished container", d.box, TCP, "10.89.0.2:80", none}, {"box, to an unpublished container", d.box, TCP, "[fd89::2]:80", none},
		{"box, to an internal network", d.box, TCP, "10.90.0.2:80", none}, {"box, to an internal network", d.box, TCP, "[fd90::2]:80", none},
		{"outside, to an unpublished container", d.outside, TCP, "10.89.0.2:80", none},
	}
}

// AcceptForward opens the way to the boxes and out of the host, and nothing of
// another engine: neither its internal networks nor its unpublished containers.
func TestAcceptForwardLeavesDockersNetworksClosed(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	d := newDockerHost(t)
	d.rules(t, dockerRules)
	// Not even to what boxes publish. It would be a way out, by a box.
	enclosed := []attempt{
		{"internal network, in", d.inner, TCP, "203.0.113.1:8080", none}, {"internal network, in", d.inner, TCP, "[2001:db8:1::1]:8080", none},
		{"internal network, in", d.inner, TCP, "10.90.0.1:8080", none},
		{"internal network, host", d.inner, TCP, "10.90.0.1:1", "10.90.0.2"}, {"internal network, host", d.inner, TCP, "[fd90::1]:1", "fd90::2"},
	}
	before := testutil.Run(t, d.host, "iptables-nft", "-S") + testutil.Run(t, d.host, "ip6tables-nft", "-S")
	try(t, d.ways(false)...)
	for range 2 { // it may be repeated
		if err := d.gw.AcceptForward(t.Context()); err != nil {
			t.Fatal(err)
		}
		try(t, append(d.ways(true), enclosed...)...)
	}
	// As after the engine was started again.
	d.rules(t, "-D FORWARD -j DOCKER-USER\n-I FORWARD -j DOCKER-USER")
	if err := d.gw.AcceptForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	try(t, d.ways(true)...)
	// As ip6tables of Docker 20.10 is.
	d.rules(t, "-D FORWARD -j DOCKER-USER")
	for range 2 {
		if err := d.gw.AcceptForward(t.Context()); err != nil {
			t.Fatal(err)
		}
		try(t, append(d.ways(true), enclosed...)...)
	}
	d.rules(t, "-I FORWARD -j DOCKER-USER")
	if err := d.gw.RevokeForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := testutil.Run(t, d.host, "iptables-nft", "-S") + testutil.Run(t, d.host, "ip6tables-nft", "-S"); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
}

// An engine that comes after AcceptForward, and appends its rules to ours, is served by the next call as one
// that came before.
func TestAcceptForwardBeforeDocker(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, rules := range map[string]string{
		"as it is": dockerRules, "without DOCKER-USER": strings.ReplaceAll(dockerRules, "\t-A FORWARD -j DOCKER-USER\n", ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDockerHost(t)
			d.rules(t, "-P FORWARD DROP")
			if err := d.gw.AcceptForward(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.rules(t, rules)
			for range 2 {
				if err := d.gw.AcceptForward(t.Context()); err != nil {
					t.Fatal(err)
				}
				try(t, append(d.ways(true), attempt{"internal network, in", d.inner, TCP, "203.0.113.1:8080", none},
					attempt{"internal network, in", d.inner, TCP, "[2001:db8:1::1]:8080", none})...)
			}
		})
	}
}

// A chain DOCKER-USER that nothing leads to is not the one that packets meet.
func TestAcceptForwardUsesTheChainThatPacketsMeet(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	d := newDockerHost(t)
	d.rules(t, dockerRules)
	accept := func() {
		t.Helper()
		if err := d.gw.AcceptForward(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range [][2]string{
		{"flushed", "-F"},
		{"led to by some", "-F FORWARD\n-A FORWARD -p udp -j DOCKER-USER"},
		{"behind an accept", "-F FORWARD\n-A FORWARD -i in0 -j ACCEPT\n-A FORWARD -j RETURN\n-A FORWARD -j DOCKER-USER"},
		{"led to by a detour", "-F FORWARD\n-A FORWARD -j DOCKER-ISOLATION-STAGE-1"},
		{"led to by nobody", "-F FORWARD"},
	} {
		name, change := c[0], c[1]
		// From where the chain is met, and has the rules.
		d.rules(t, "-I FORWARD -j DOCKER-USER")
		accept()
		for _, tool := range []string{"iptables-nft", "ip6tables-nft"} {
			if rules := testutil.Run(t, d.host, tool, "-S", "DOCKER-USER"); !strings.Contains(rules, "boxwire") {
				t.Errorf("before %s: %s", name, rules)
			}
		}
		d.rules(t, change)
		accept()
		for _, tool := range []string{"iptables-nft", "ip6tables-nft"} {
			if rules := testutil.Run(t, d.host, tool, "-S", "DOCKER-USER"); strings.Contains(rules, "boxwire") {
				t.Errorf("%s: %s", name, rules)
			}
		}
		try(t, d.ways(true)...)
	}
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "")
	causes, err := d.gw.Explain(t.Context(), web, Hints{From: netip.MustParseAddr("203.0.113.9")})
	if err != nil || len(causes) != 0 {
		t.Errorf("Explain: %v, %v", causes, err)
	}
	// What AcceptForward has done does not help against a drop before it.
	d.rules(t, "-I FORWARD -p tcp --dport 80 -j DROP")
	causes, err = d.gw.Explain(t.Context(), web, Hints{From: netip.MustParseAddr("203.0.113.9")})
	if err != nil || len(causes) != 1 || causes[0].Kind != CauseForeignDrop || strings.Contains(causes[0].Text, "AcceptForward") {
		t.Errorf("Explain of a drop before the accepts: %v, %v", causes, err)
	}
	d.rules(t, "-F\n-A FORWARD -j DOCKER-USER")
	causes, err = d.gw.Explain(t.Context(), web, Hints{From: netip.MustParseAddr("203.0.113.9")})
	if err != nil || len(causes) != 1 || !strings.Contains(causes[0].Text, "AcceptForward") {
		t.Errorf("Explain of the policy DROP: %v, %v", causes, err)
	}
}
