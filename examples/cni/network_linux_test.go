package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// neighbours are the hardware addresses that a namespace has for addresses.
func neighbours(t testing.TB, ns *netns.NS) map[string]string {
	t.Helper()
	var entries []struct{ Dst, Lladdr string }
	testutil.JSON(t, ns, &entries, "ip", "-j", "neigh")
	all := map[string]string{}
	for _, e := range entries {
		all[e.Dst] = e.Lladdr
	}
	return all
}

func TestAnAddressThatIsTakenOverIsReachedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	const ips = `"ips": ["10.89.0.77", "fd89::77"]`
	first, second, sibling := r.container("first", ips), r.container("second", ips), r.container("sibling", "")
	r.add(first)
	r.add(sibling)
	serve(t, first)
	for _, from := range []*netns.NS{r.host, sibling.ns} {
		for _, at := range []string{"10.89.0.77", "[fd89::77]"} {
			if err := reach(t, from, at, "first"); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.del(first)
	mac := r.add(second).Interfaces[2].Mac
	serve(t, second)
	for _, from := range []*netns.NS{r.host, sibling.ns} {
		for _, at := range []string{"10.89.0.77", "fd89::77"} {
			if got := neighbours(t, from)[at]; got != mac {
				t.Errorf("%s is at %s for its neighbours, not at %s", at, got, mac)
			}
		}
		for _, at := range []string{"10.89.0.77", "[fd89::77]"} {
			if err := reach(t, from, at, "second"); err != nil {
				t.Error(err)
			}
		}
	}
	for _, c := range []container{second, sibling} {
		r.del(c)
	}
	r.gc()
	r.clean()
}

func TestTheMTUIsTheBridges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		conf    string
		prepare []string
		want    int // of the bridge, and of both ends
		pair    int
	}{
		{"a bridge with large packets", "", []string{"link add boxwire0 mtu 9000 type bridge"}, 9000, 9000},
		{"one that follows its ports", "", []string{"link add boxwire0 type bridge", "link add lan0 type veth peer name lan1", "link set lan0 mtu 9000 master boxwire0 up", "link set lan1 mtu 9000 up"}, 9000, 9000},
		{"one with small packets", "", []string{"link add boxwire0 mtu 1400 type bridge"}, 1400, 1400},
		{"none", "", nil, 1500, 1500},
		{"asked for", `"mtu": 1400`, []string{"link add boxwire0 type bridge", "link set boxwire0 mtu 9000"}, 9000, 1400},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.conf)
			for _, p := range test.prepare {
				testutil.Run(t, r.host, "ip", strings.Fields(p)...)
			}
			c := r.container("c1", "")
			result := r.add(c)
			mtu := func(ns *netns.NS, name string) int {
				var links []struct{ MTU int }
				testutil.JSON(t, ns, &links, "ip", "-j", "link", "show", name)
				return links[0].MTU
			}
			if got := mtu(r.host, "boxwire0"); got != test.want {
				t.Errorf("the bridge has %d, want %d", got, test.want)
			}
			for _, got := range []int{mtu(c.ns, "eth0"), mtu(r.host, attachment{"testnet", "c1", "eth0"}.link()), result.Interfaces[2].Mtu} {
				if got != test.pair {
					t.Errorf("the pair has %d, want %d", got, test.pair)
				}
			}
			if err := r.check(c); err != nil {
				t.Error(err)
			}
			r.del(c)
		})
	}
}

func TestAGatewayMayBeOutsideTheSubnet(t *testing.T) {
	t.Parallel()
	host, outside := netnstest.Host(t)
	for _, prepared := range []bool{false, true} {
		t.Run(fmt.Sprint("a bridge that is there: ", prepared), func(t *testing.T) {
			if prepared {
				testutil.Run(t, host.NS, "ip", "link", "add", "boxwire0", "up", "type", "bridge")
			}
			r := newRigOn(t, host.NS, `"ipam": {"type": "boxwire", "dataDir": "DIR/state", "ranges": [[{"subnet": "fd89::/64", "gateway": "fe80::1"}]]}`)
			c := r.container("c1", `"portMappings": [{"hostPort": 8080, "containerPort": 80}]`)
			r.add(c)
			serve(t, c)
			if got := r.defaults(c, "-6"); got != "fe80::1 eth0 1024" {
				t.Errorf("the default route is %s", got)
			}
			if out := testutil.Run(t, host.NS, "ip", "addr", "show", "boxwire0"); !strings.Contains(out, "fe80::1/64") {
				t.Errorf("the bridge has %s", out)
			}
			if err := reach(t, host.NS, "[fd89::1]", "c1"); err != nil { // the subnet's first, as no gateway has it
				t.Error(err)
			}
			if err := reach(t, outside.NS, "[2001:db8::1]:8080", "c1"); err != nil {
				t.Error(err)
			}
			conn, err := c.ns.Dial(t.Context(), "udp", "[2001:db8::2]:53")
			if err != nil {
				t.Errorf("the way out: %v", err)
			} else {
				conn.Close()
			}
			if err := r.check(c); err != nil {
				t.Error(err)
			}
			testutil.Run(t, host.NS, "ip", "-6", "route", "del", "fd89::/64", "dev", "boxwire0")
			if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), "fd89::/64") {
				t.Errorf("CHECK without the route: %v", err)
			}
			r.del(c)
			r.gc()
		})
	}
}

func TestAGatewayMayBeOnTheLink(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, conf, family, want string }{
		{"a route", `"ipam": {"type": "boxwire", "subnet": "10.89.0.0/24", "dataDir": "DIR/state", "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1", "onlink": true}, {"dst": "0.0.0.0/0"}]}`, "-4", "198.51.100.0/24 via 192.0.2.1 dev eth0 proto static onlink"},
		{"a route of IPv6", `"ipam": {"type": "boxwire", "subnet": "fd89::/64", "dataDir": "DIR/state", "routes": [{"dst": "2001:db8:9::/48", "gw": "2001:db8::9", "onlink": true}]}`, "-6", "2001:db8:9::/48 via 2001:db8::9 dev eth0 proto static metric 1024 onlink"},
		{"another plugin's gateway", `"ipam": {"type": "fakeipam", "answer": {"cniVersion": "1.1.0", "ips": [{"address": "10.89.0.7/32", "gateway": "169.254.1.1"}]}}`, "-4", "default via 169.254.1.1 dev eth0 proto static onlink"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.conf)
			c := r.container("c1", "")
			r.add(c)
			if out := testutil.Run(t, c.ns, "ip", test.family, "route"); !strings.Contains(out, test.want) {
				t.Errorf("the routes lack %q: %s", test.want, out)
			}
			if strings.Contains(test.conf, "fakeipam") { // the host's way to it, and back
				serve(t, c)
				if err := reach(t, r.host, "10.89.0.7", "c1"); err != nil {
					t.Error(err)
				}
			}
			if err := r.check(c); err != nil {
				t.Error(err)
			}
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}

// noisy executes plugins, and keeps what they write to standard error.
type noisy struct {
	inside
	stderr *bytes.Buffer
}

func (n noisy) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	cmd := n.ns.Command(ctx, path)
	cmd.Args[0], cmd.Env, cmd.Stdin, cmd.Stderr = path, env, bytes.NewReader(stdin), n.stderr
	return cmd.Output()
}

// dockers is the forward chain of an engine that lets nothing through but its own.
const dockers = `table ip filter {
	chain DOCKER-USER { return; }
	chain FORWARD { type filter hook forward priority 0; policy drop; counter jump DOCKER-USER; oifname "docker0" counter accept; }
}
table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }
`

func TestAnotherFirewallThatDropsIsSaidAndMended(t *testing.T) {
	t.Parallel()
	for _, accept := range []bool{false, true} {
		t.Run(fmt.Sprint("acceptForward ", accept), func(t *testing.T) {
			t.Parallel()
			host, outside := netnstest.Host(t)
			testutil.Witness(t, "nft")
			load := host.NS.Command(t.Context(), "nft", "-f", "-")
			load.Stdin = strings.NewReader(dockers)
			if out, err := load.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			foreign := func() string {
				return testutil.Run(t, host.NS, "nft", "-s", "list", "table", "ip", "filter") + testutil.Run(t, host.NS, "nft", "-s", "list", "table", "ip6", "filter")
			}
			before := foreign()
			r := newRigOn(t, host.NS, fmt.Sprintf(`"acceptForward": %t`, accept))
			said := &bytes.Buffer{}
			loud := *r
			loud.cni = libcni.NewCNIConfigWithCacheDir(r.cni.Path, r.cache(), noisy{inside{r.host, &version.PluginDecoder{}}, said})
			for _, capabilities := range []string{publish8080, ""} { // with and without a port
				said.Reset()
				c := r.container(fmt.Sprint("c", len(capabilities)), capabilities)
				loud.add(c)
				serve(t, c)
				switch {
				case accept && said.Len() > 0:
					t.Errorf("ADD says %s", said)
				case !accept && (!strings.Contains(said.String(), "FORWARD") || !strings.Contains(said.String(), "acceptForward") || strings.Count(said.String(), "\n") != 1):
					t.Errorf("ADD says %q", said)
				}
				if capabilities == "" {
					if err := r.check(c); err != nil {
						t.Errorf("CHECK: %v", err)
					}
					r.del(c)
					continue
				}
				ln, err := outside.Listen(t.Context(), "tcp", "203.0.113.2:0")
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if accept {
					ctx = t.Context()
				}
				conn, derr := c.ns.Dial(ctx, "tcp", ln.Addr().String())
				cancel()
				if derr == nil {
					conn.Close()
				}
				ln.Close()
				if (derr == nil) != accept {
					t.Errorf("the way out: %v", derr)
				}
				if accept {
					for _, at := range []string{"203.0.113.1:8080", "[2001:db8::1]:8080"} {
						if err := reach(t, outside.NS, at, c.ContainerID); err != nil {
							t.Error(err)
						}
					}
				}
				if err := r.check(c); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				if accept {
					testutil.Run(t, host.NS, "nft", "flush", "chain", "ip", "filter", "DOCKER-USER")
					testutil.Run(t, host.NS, "nft", "flush", "chain", "ip6", "filter", "FORWARD")
					if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), "FORWARD") {
						t.Errorf("CHECK of what is dropped again: %v", err)
					}
					testutil.Run(t, host.NS, "nft", "add", "rule", "ip", "filter", "DOCKER-USER", "return")
				}
				r.del(c)
			}
			r.gc()
			if after := foreign(); after != before {
				t.Errorf("the other firewall was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

func TestIPv6ThatIsSwitchedOff(t *testing.T) {
	t.Parallel()
	const only4 = `"ipam": {"type": "boxwire", "subnet": "10.89.0.0/24", "dataDir": "DIR/state"}`
	for _, test := range []struct {
		name, conf string
		host, box  bool // where it is off
		says       string
	}{
		{"in the container", "", false, true, "the container has no IPv6"},
		{"on the host", "", true, false, "the host has no IPv6"},
		{"in both", "", true, true, "no IPv6"},
		{"in the container, IPv4 only", only4, false, true, ""},
		{"on the host, IPv4 only", only4, true, false, ""},
		{"in both, IPv4 only", only4, true, true, ""},
		{"in both, with IPv6 only", `"ipam": {"type": "boxwire", "subnet": "fd89::/64", "dataDir": "DIR/state"}`, true, true, "no IPv6"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.conf)
			c := r.container("c1", publish8080)
			for ns, off := range map[*netns.NS]bool{r.host: test.host, c.ns: test.box} {
				if off {
					testutil.Run(t, ns, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")
				}
			}
			_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
			if test.says != "" {
				if codeOf(err) != 7 || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "disable_ipv6") {
					t.Errorf("ADD: %v", err)
				}
			} else {
				if err != nil {
					t.Errorf("ADD: %v", err)
				}
				serve(t, c)
				for _, at := range []string{"10.89.0.2", "127.0.0.1:8080"} {
					if err := reach(t, r.host, at, "c1"); err != nil {
						t.Error(err)
					}
				}
				if err := r.check(c); err != nil {
					t.Errorf("CHECK: %v", err)
				}
			}
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}
