package nat

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/ipv6"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// topology is a host between networks, which ask and serve send traffic through:
//
//	box     10.88.0.2, fd88::2 ---box0--+-- br0 10.88.0.1, fd88::1
//	sibling 10.88.0.3, fd88::3 ---sib0--+
//	other   10.89.0.2, fd89::2 ---oth0----- br1 10.89.0.1, fd89::1
//	outside 203.0.113.9, 2001:db8:1::9  --- up0 203.0.113.1, 2001:db8:1::1
//	beyond  198.51.100.9, 2001:db8:2::9 --- up1 198.51.100.1, 2001:db8:2::1
//
// The boxes have a default route to the host, outside and beyond one to every
// other's addresses by way of the host. Bridge ports have hairpin mode.
type topology struct {
	host, box, sibling, other, outside, beyond *netns.NS
	gw                                         *NAT
}

// newTopology is a topology with a network on br0.
func newTopology(t *testing.T) topology {
	t.Helper()
	s := wire(t)
	s.gw = open(t, s.host)
	if err := s.gw.AddNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	return s
}

// network0 is the network on br0.
func network0() Network {
	return Network{Interface: "br0", Subnets: bothFamilies("10.88.0.0/16", "fd88::/64"), Masquerade: true}
}

// network1 is the network on br1.
func network1() Network {
	return Network{Interface: "br1", Subnets: bothFamilies("10.89.0.0/16", "fd89::/64"), Masquerade: true}
}

// bothFamilies are the two subnets; the IPv4 one alone where namespaces have no
// IPv6.
func bothFamilies(four, six string) []netip.Prefix {
	if !netnstest.HasIPv6() {
		return prefixes(four)
	}
	return prefixes(four, six)
}

// wire is a topology without a table. It has both families, so a test without IPv6 is skipped.
func wire(t testing.TB) topology {
	t.Helper()
	netnstest.NeedIPv6(t)
	s := topology{
		host: netnstest.New(t), box: netnstest.New(t), sibling: netnstest.New(t), other: netnstest.New(t),
		outside: netnstest.New(t), beyond: netnstest.New(t),
	}
	for _, ns := range []*netns.NS{s.host, s.box, s.sibling, s.other, s.outside, s.beyond} {
		// Link-local addresses are of use at once, and neighbour discovery with them.
		setSysctl(t, ns, "ipv6/conf/default/dad_transmits", "0")
	}
	up := fmt.Sprintf(`
		link add br0 type bridge
		link add br1 type bridge
		link add box0 type veth peer name eth0 netns %d
		link add sib0 type veth peer name eth0 netns %d
		link add oth0 type veth peer name eth0 netns %d
		link add up0 type veth peer name wan0 netns %d
		link add up1 type veth peer name wan0 netns %d
		link set box0 master br0 up
		link set box0 type bridge_slave hairpin on
		link set sib0 master br0 up
		link set sib0 type bridge_slave hairpin on
		link set oth0 master br1 up
		link set oth0 type bridge_slave hairpin on
		link set br0 up
		link set br1 up
		link set up0 up
		link set up1 up
		addr add 10.88.0.1/16 dev br0
		addr add 10.89.0.1/16 dev br1
		addr add 203.0.113.1/24 dev up0
		addr add 198.51.100.1/24 dev up1
		addr add fd88::1/64 dev br0 nodad
		addr add fd89::1/64 dev br1 nodad
		addr add 2001:db8:1::1/64 dev up0 nodad
		addr add 2001:db8:2::1/64 dev up1 nodad`,
		standIn(t, s.box), standIn(t, s.sibling), standIn(t, s.other), standIn(t, s.outside), standIn(t, s.beyond))
	ip(t, s.host, up)
	for _, n := range []struct {
		ns                        *netns.NS
		dev, addr4, addr6, router string
	}{
		{s.box, "eth0", "10.88.0.2/16", "fd88::2/64", "10.88.0.1 fd88::1"},
		{s.sibling, "eth0", "10.88.0.3/16", "fd88::3/64", "10.88.0.1 fd88::1"},
		{s.other, "eth0", "10.89.0.2/16", "fd89::2/64", "10.89.0.1 fd89::1"},
		{s.outside, "wan0", "203.0.113.9/24", "2001:db8:1::9/64", "203.0.113.1 2001:db8:1::1"},
		{s.beyond, "wan0", "198.51.100.9/24", "2001:db8:2::9/64", "198.51.100.1 2001:db8:2::1"},
	} {
		via4, via6, _ := strings.Cut(n.router, " ")
		ip(t, n.ns, fmt.Sprintf(`
			link set %[1]s up
			addr add %[2]s dev %[1]s
			addr add %[3]s dev %[1]s nodad
			route add default via %[4]s
			route add ::/0 via %[5]s`, n.dev, n.addr4, n.addr6, via4, via6))
	}
	return s
}

// ip runs the lines as commands of ip.
func ip(t testing.TB, ns *netns.NS, lines string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(ipv6.Lines(lines)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "ip", "-batch", file)
}

// standIn starts a process in ns, which ip takes for a namespace without a name,
// and returns its number. It ends with the test.
func standIn(t testing.TB, ns *netns.NS) int {
	t.Helper()
	cmd, err := netns.Do(t.Context(), ns, func(context.Context) (*exec.Cmd, error) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), idleEnv+"=1")
		in, err := cmd.StdinPipe() // it ends when the test does, however that ends
		if err == nil {
			err = cmd.Start()
		}
		_ = in
		return cmd, err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// waitReady waits until the topology's links take packets, IPv6 too: one that has just
// come up does not for a moment.
func (s topology) waitReady(t *testing.T) {
	t.Helper()
	serve(t, s.host, ":1")
	for _, c := range []struct {
		ns    *netns.NS
		addrs []string
	}{
		{s.box, []string{"10.88.0.1:1", "[fd88::1]:1"}}, {s.sibling, []string{"10.88.0.1:1", "[fd88::1]:1"}},
		{s.other, []string{"10.89.0.1:1", "[fd89::1]:1"}}, {s.outside, []string{"203.0.113.1:1", "[2001:db8:1::1]:1"}},
		{s.beyond, []string{"198.51.100.1:1", "[2001:db8:2::1]:1"}},
	} {
		for _, addr := range c.addrs {
			if netip.MustParseAddrPort(addr).Addr().Is6() && !netnstest.HasIPv6() {
				continue
			}
			for deadline := time.Now().Add(10 * time.Second); ; {
				_, err := ask(t, c.ns, addr)
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
		}
	}
}

// serve answers every TCP connection in ns with the client's address.
func serve(t *testing.T, ns *netns.NS, addr string) {
	t.Helper()
	ln, err := ns.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go tellClients(ln)
}

// tellClients answers every client of a listener with its address.
func tellClients(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		fmt.Fprint(c, host)
		c.Close()
	}
}

// ask connects and returns what the server said.
func ask(t *testing.T, ns *netns.NS, addr string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}
