package topology

import (
	"net/netip"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	before, after := scene(3), scene(3)
	if got := diff(t, before, after); got != "" {
		t.Errorf("two equal snapshots differ by\n%s", got)
	}
	after.Namespaces = after.Namespaces[:3] // without box2
	host := after.Namespaces[0]
	host.Links = host.Links[:len(host.Links)-1]
	host.Links[1].Up = false
	host.Ports[0].Box = netip.MustParseAddrPort("10.88.0.9:80")
	after.Namespaces[1].Inode = 99 // box0 was made anew
	for _, l := range host.Links {
		if l.Peer != nil && l.Peer.Inode == 2 {
			l.Peer.Inode = 99
		}
	}
	after.Namespaces[1].Listeners = append(after.Namespaces[1].Listeners, Listener{"udp", netip.MustParseAddrPort("0.0.0.0:53")})
	want := `~ box0  net:[2] web 100  ->  net:[99] web 100
+ box0 listens on udp 0.0.0.0:53
- box2  net:[4] web 102
- box2 addr 10.88.0.4/16 on eth0
- box2 link eth0  veth mtu 0 --- host veth2
- box2 link lo  mtu 0
- box2 listens on tcp 0.0.0.0:80
~ host link eth0  mtu 0  ->  down mtu 0
- host link veth2  veth mtu 0 master br0 --- box2 eth0
~ host port :8000 of table inet boxwire  :8000 → 10.88.0.2:80 (box0)  ->  :8000 → 10.88.0.9:80 (box0)
`
	if got := diff(t, before, after); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Namespaces of one title are told apart by their numbers.
func TestDiffOfNamesakes(t *testing.T) {
	t.Parallel()
	before, after := pod("pod"), pod("pod")
	after.Namespaces[1].Links[0].MTU = 9000
	if got := diff(t, before, after); strings.Count(got, "\n") != 1 || !strings.Contains(got, "pod net:[") {
		t.Errorf("got\n%s", got)
	}
}

func diff(t *testing.T, before, after *Snapshot) string {
	t.Helper()
	var b strings.Builder
	if err := WriteDiff(&b, before, after); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
