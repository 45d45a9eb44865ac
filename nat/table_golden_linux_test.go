package nat

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

var update = flag.Bool("update", false, "record what nft lists as the golden files of this test")

// goldens are configurations whose listings are recorded in testdata/golden.
var goldens = []struct {
	name  string
	links []string // ip link add ...
	state State
}{
	{name: "empty"},
	{name: "masquerade", state: State{Networks: []Network{network0()}}},
	{name: "options", state: State{Networks: allOptions()}},
	{
		name:  "links",
		links: []string{"br0 type bridge", "up0 type veth peer name up0p"},
		state: State{Networks: []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16"), Masquerade: true}}},
	},
	{
		name: "policies",
		state: State{
			Networks: []Network{network0()},
			Policies: []Policy{
				{
					Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Refuse: true,
					Egress: &Rules{Allow: []Rule{
						{Peer: netip.MustParsePrefix("203.0.113.0/24"), Proto: TCP, Port: 443},
						{Peer: netip.MustParsePrefix("198.51.100.0/24"), Except: prefixes("198.51.100.64/26"), Proto: UDP, Port: 100, PortLast: 200},
						{Peer: netip.MustParsePrefix("2001:db8::/32"), Proto: ICMP},
						{Host: true, Proto: UDP, Port: 53},
					}},
					Ingress: &Rules{},
				},
				{Box: addrs("10.88.0.3"), Owner: "db", Ingress: &Rules{Allow: []Rule{{Peer: netip.MustParsePrefix("10.88.0.2/32")}}}},
			},
		},
	},
	{
		name: "ports",
		state: State{
			Networks: []Network{network0()},
			Ports: []Port{
				tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web"),
				tcp("203.0.113.1:8443", "10.88.0.2:443", "tls"), tcp("[2001:db8:1::1]:8443", "[fd88::2]:443", "tls"),
				tcp("127.0.0.1:9090", "10.88.0.3:90", "an owner, with: signs"),
				{Proto: UDP, Host: ap("0.0.0.0:53"), Box: ap("10.88.0.2:5353"), Owner: "dns"},
				{Proto: SCTP, Host: ap("203.0.113.1:38412"), Box: ap("10.88.0.4:38412"), Owner: "amf"},
				{Proto: UDP, Host: ap("0.0.0.0:30000"), HostLast: 39999, Box: ap("10.88.0.5:30000"), Owner: "rtp"},
				{Proto: UDP, Host: ap("[2001:db8:1::1]:30000"), HostLast: 30001, Box: ap("[fd88::5]:30000"), Owner: "rtp"},
			},
		},
	},
}

// The listing of what Sync makes, and of what the single steps make, is that of
// the golden file, which nft itself takes.
func TestTheTableIsTheGoldenOne(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for i, g := range goldens {
		if !testutil.Spread(i, 2) {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join("testdata", "golden", g.name+".nft")
			stage := func() *netns.NS {
				ns := netnstest.New(t)
				// A router already: what is recorded of IPv6 differs from kernel to kernel.
				setSysctl(t, ns, "ipv6/conf/all/forwarding", "1")
				// Links that come with the namespace forward: tunl0 and the like.
				links, err := readLinks(t.Context(), ns)
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range links {
					setSysctl(t, ns, "ipv4/conf/"+l.Name+"/forwarding", "1")
				}
				for _, l := range g.links {
					testutil.Run(t, ns, "sh", "-c", "ip link add "+l)
				}
				return ns
			}
			ns := stage()
			gw := open(t, ns)
			if err := gw.Sync(t.Context(), g.state); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(listing(t, ns)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			theirs := netnstest.New(t)
			testutil.LoadNFT(t, theirs, file)
			if out, err := testutil.Try(t, ns, "nft", "-c", "-f", file); err != nil {
				t.Errorf("nft does not take the golden file: %v\n%s", err, out)
			}
			same(t, "Sync", objects(t, ns), objects(t, theirs))

			ns = stage()
			gw = open(t, ns)
			for _, net := range g.state.Networks {
				if err := gw.AddNetwork(t.Context(), net); err != nil {
					t.Fatal(err)
				}
			}
			if err := gw.Publish(t.Context(), g.state.Ports...); err != nil {
				t.Fatal(err)
			}
			if err := gw.SetPolicies(t.Context(), g.state.Policies...); err != nil {
				t.Fatal(err)
			}
			same(t, "single steps", objects(t, ns), objects(t, theirs))
		})
	}
}

// same compares two listings, without the order of elements, which a hash decides.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	sortElements(got)
	sortElements(want)
	if !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		w, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("%s: the listing differs from the golden file's:\n%s\nthe golden file's:\n%s", what, g, w)
	}
}

func sortElements(v any) {
	switch v := v.(type) {
	case map[string]any:
		if elems, ok := v["elem"].([]any); ok {
			text := func(x any) string { b, _ := json.Marshal(x); return string(b) }
			sort.Slice(elems, func(i, j int) bool { return text(elems[i]) < text(elems[j]) })
		}
		for _, x := range v {
			sortElements(x)
		}
	case []any:
		for _, x := range v {
			sortElements(x)
		}
	}
}
