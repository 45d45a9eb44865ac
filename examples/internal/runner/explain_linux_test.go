package runner

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/boxtest"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// uplink gives a host a neighbour, and a default route to it.
func uplink(t *testing.T, host *netns.NS) {
	t.Helper()
	lan := netnstest.New(t)
	_, err := link.Create(t.Context(), host, link.Spec{
		Name: "lan0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")},
		Kind: link.Veth{Peer: link.Spec{NS: lan, Name: "lan0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}},
	})
	if err == nil {
		err = route.Add(t.Context(), host, route.Default(netip.MustParseAddr("192.0.2.1")))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A host is broken as it is in life; explain names what is wrong, says what to do, and once that is done finds nothing.
func TestExplainOfBrokenHosts(t *testing.T) {
	t.Parallel()
	for i, test := range []struct {
		name   string
		breaks string // by sh, on the host
		args   string
		status int
		says   []string
		mends  string // what it says to do, by sh
	}{
		{name: "nothing", args: "web", says: []string{"web (10.88.0.2, fd88::2), and its way to outside\n  no cause is found", "tcp 0.0.0.0:8080 leads to 10.88.0.2:80 of web\n  no cause is found"}},
		{name: "nothing, of all", says: []string{"web (10.88.0.2, fd88::2)", "tcp [::]:8080 leads to [fd88::2]:80 of web"}},
		{name: "nothing, of a port", args: "-port 8080/tcp", says: []string{"tcp 0.0.0.0:8080 leads to 10.88.0.2:80 of web\n  no cause is found"}},
		{
			name: "forwarding off", breaks: "echo 0 >/proc/sys/net/ipv4/conf/lan0/forwarding", args: "-port 8080 -from 192.0.2.1", status: 1,
			says:  []string{"cause: the host does not forward what comes in by lan0 (net.ipv4.conf.lan0.forwarding is 0)\n", "to do: sysctl -w net.ipv4.conf.lan0.forwarding=1"},
			mends: "echo 1 >/proc/sys/net/ipv4/conf/lan0/forwarding",
		},
		{
			name: "a foreign policy by nft", breaks: "nft add table inet mine; nft add chain inet mine through '{ type filter hook forward priority 0; policy drop; }'", args: "-port 8080", status: 1,
			says:  []string{"cause: the policy of chain inet mine through drops connections to the port", `to do: let it through there: nft insert rule inet mine through iifname "boxwire0" accept; nft insert rule inet mine through oifname "boxwire0" accept` + "\n"},
			mends: `nft insert rule inet mine through iifname "boxwire0" accept; nft insert rule inet mine through oifname "boxwire0" accept`,
		},
		{
			name: "a foreign rule, on the way out", breaks: "nft add table ip mine; nft add chain ip mine through '{ type filter hook forward priority 0; }'; nft add rule ip mine through ip saddr 10.88.0.0/16 drop",
			args: "-to 192.0.2.1 web", status: 1,
			says:  []string{"web (10.88.0.2, fd88::2), and its way to 192.0.2.1\n  cause: rule # handle 2 of chain ip mine through drops what the box begins", "or remove the rule: nft delete rule ip mine through handle 2"},
			mends: "nft delete rule ip mine through handle 2",
		},
		{
			name: "a foreign policy by iptables", breaks: "iptables-nft -P FORWARD DROP", args: "-port 8080/tcp -from 192.0.2.1", status: 1,
			says:  []string{"cause: the policy of chain ip filter FORWARD drops connections to the port", "to do: run the box with -accept-forward"},
			mends: "iptables-nft -A FORWARD -i boxwire0 -j ACCEPT; iptables-nft -A FORWARD -o boxwire0 -j ACCEPT",
		},
		{
			name: "a foreign policy by iptables-legacy", breaks: "iptables-legacy -P FORWARD DROP", args: "-port 8080/tcp", status: 2,
			says: []string{"possible cause: the table filter of iptables-legacy may drop or translate it", "accept in the chain FORWARD what has boxwire0 as its link"},
		},
		{
			name: "firewalld", breaks: `nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy accept; }'
				nft add rule inet firewalld filter_FORWARD ct state established,related accept; nft add rule inet firewalld filter_FORWARD iifname lo accept
				nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited`, args: "-port 8080/tcp -from 192.0.2.1", status: 1,
			says: []string{"of chain inet firewalld filter_FORWARD", "firewall-cmd --permanent --zone=trusted --add-interface=boxwire0"},
			// What firewalld does for that.
			mends: "nft insert rule inet firewalld filter_FORWARD oifname boxwire0 accept",
		},
		{name: "nothing listens", args: "-port 8081", status: 1, says: []string{"cause: no program in the box listens on tcp port 81\n", "to do: start the program in the box"}},
		{name: "not published", args: "-port 80", status: 1, says: []string{"port 80\n  cause: the port is not published; published are tcp 0.0.0.0:8080, which leads to 10.88.0.2:80 of web", "to do: run the box with -p"}},
		{name: "not with that protocol", args: "-port 8080/udp", status: 1, says: []string{"udp port 8080\n  cause: the port is not published; published are tcp 0.0.0.0:8080"}},
		{name: "not at that address", args: "-port 198.51.100.7:8080", status: 1, says: []string{"198.51.100.7 is no address of the host", "to do: use an address of the host"}},
		{name: "no such box", args: "wep", status: 1, says: []string{"cause: there is no box wep, and nothing of one is left", "to do: ask for one that is there: web"}},
		{
			name: "the bridge is down, of the box", breaks: "ip link set boxwire0 down", args: "web", status: 1,
			says: []string{"outside\n  cause: the link boxwire0 of the network is down\n  to do: ip link set boxwire0 up\ntcp", "it has lost its IPv6 addresses: run the box again"},
		},
		{
			name: "the bridge is down", breaks: "ip link set boxwire0 down", args: "-port 8080 -from 192.0.2.1", status: 1,
			says:  []string{"of web\n  cause: the link boxwire0 of the network is down\n  to do: ip link set boxwire0 up\n"},
			mends: "ip link set boxwire0 up",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprint("explained", i) // all tests of the machine share the names of boxes
			if test.args == "-port 8080/tcp" || strings.Contains(test.args, "web") || test.args == "" {
				netnstest.NeedIPv6(t)
			}
			host := netnstest.New(t)
			uplink(t, host)
			start(t, host, name, "-p", "8080:80", "-p", "8081:81")
			ask := func() result {
				got := cli(t, host, append([]string{"explain"}, strings.Fields(strings.ReplaceAll(test.args, "web", name))...)...)
				got.out = strings.ReplaceAll(got.out, name, "web")
				return got
			}
			if test.breaks == "" && test.status == 0 && len(test.args) < 5 {
				// The port 8081 has no listener.
				got := ask()
				for _, s := range test.says {
					if !strings.Contains(got.out, s) {
						t.Errorf("explain says\n%s%s, which lacks\n%s", got.out, got.err, s)
					}
				}
				return
			}
			if test.breaks != "" {
				tried(t, host, test.breaks)
			}
			got := ask()
			if strings.HasPrefix(test.breaks, "echo") { // the run mends it with each link that appears, such as its own
				boxtest.Within(t, func() string {
					tried(t, host, test.breaks)
					if got = ask(); got.status == test.status {
						return ""
					}
					return got.out
				})
			}
			if got.status != test.status || got.err != "" {
				t.Errorf("explain ends with %d and %q, want %d", got.status, got.err, test.status)
			}
			for _, s := range test.says {
				if !strings.Contains(got.out, s) {
					t.Errorf("explain says\n%s, which lacks\n%s", got.out, s)
				}
			}
			if test.mends != "" {
				tried(t, host, test.mends)
				if got = ask(); got.status != 0 {
					t.Errorf("once that is done, it says\n%s", got.out)
				}
			}
		})
	}
}

// tried does lines of sh(1) on a host, and skips a test whose tools are not installed.
func tried(t *testing.T, host *netns.NS, lines string) {
	t.Helper()
	for _, name := range []string{"nft", "iptables-nft", "iptables-legacy"} {
		if strings.Contains(lines, name+" ") {
			testutil.Run(t, host, name, "--version")
		}
	}
	testutil.Run(t, host, "sh", "-ec", lines)
}

// What a killed run has left is a box that is gone.
func TestExplainOfABoxThatIsGone(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	cmd := start(t, host, "explained-gone", "-p", "8080:80")
	cmd.Process.Kill()
	boxtest.Within(t, func() string {
		for _, b := range listed(t, host) {
			if b.Pid != 0 {
				return "the run is still there"
			}
		}
		return ""
	})
	for _, args := range [][]string{{"explained-gone"}, {"-port", "8080"}, {}} {
		got := cli(t, host, append([]string{"explain"}, args...)...)
		if got.status != 1 || !strings.Contains(got.out, "the box is gone, and") || !strings.Contains(got.out, "to do: run gc\n") {
			t.Errorf("explain %q ends with %+v", args, got)
		}
	}
	cli(t, host, "gc")
	if got := cli(t, host, "explain"); got.status != 0 || !strings.Contains(got.out, "there is no box, and no port is published") {
		t.Errorf("after gc, explain ends with %+v", got)
	}
	if got := cli(t, host, "explain", "explained-gone"); got.status != 1 || !strings.Contains(got.out, "there is no box explained-gone") {
		t.Errorf("after gc, explain of it ends with %+v", got)
	}
	empty(t, host)
}

// What is broken in the box itself.
func TestExplainLooksIntoTheBox(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	uplink(t, host)
	start(t, host, "explained-inside")
	for _, test := range []struct{ breaks, says, mends string }{
		{"ip link set eth0 down", "cause: the link eth0 of the box is down\n  to do: bring it up in the box: ip link set eth0 up\n", "ip link set eth0 up"},
		{"ip addr flush dev eth0", "cause: the box has lost its address 10.88.0.2\n  to do: run the box again\n", ""},
	} {
		do := func(line string) {
			cli(t, host, append([]string{"exec", "explained-inside"}, strings.Fields(line)...)...)
		}
		testutil.Run(t, host, "ip", "-V")
		do(test.breaks)
		if got := cli(t, host, "explain", "explained-inside"); got.status != 1 || !strings.Contains(got.out, test.says) {
			t.Errorf("%s: explain ends with %+v, want %q", test.breaks, got, test.says)
		}
		do(test.mends)
	}
}

func TestExplainRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	for args, says := range map[string]string{
		"-port 0":                              "a port is 8080, 53/udp or",
		"-port 8080/icmp":                      "a port is 8080",
		"-port x":                              "a port is 8080",
		"-port 65536":                          "a port is 8080",
		"-from nobody":                         "it is no address",
		"-to 0.0.0.0":                          "it is no address",
		"-port 8080 web":                       "takes -port, or a box",
		"-port 192.0.2.1:80 -from 2001:db8::1": "of another family",
		"-nosuch":                              "nosuch",
	} {
		got := cli(t, host, append([]string{"explain"}, strings.Fields(args)...)...)
		if got.status != 125 || got.out != "" || !strings.Contains(got.err, says) || strings.Count(got.err, "\n") != 1 {
			t.Errorf("explain %s ends with %+v, want %q", args, got, says)
		}
	}
	if got := cli(t, host, "explain", "-h"); got.status != 0 || !strings.HasPrefix(got.out, "usage: run explain [flags] [BOX...]\n") {
		t.Errorf("explain -h ends with %+v", got)
	}
}
