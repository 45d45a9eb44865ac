package nat

import (
	"testing"

	"github.com/boxwire/boxwire/internal/ct"
)

func TestFlowsThatTheTableWouldNotLetBeginHaveSlippedIn(t *testing.T) {
	t.Parallel()
	var nets []NetworkState
	for _, n := range allOptions() {
		nets = append(nets, NetworkState{Network: n})
	}
	const untouched = 0
	for _, c := range []struct {
		name     string
		proto    Proto
		src, dst string
		status   uint32
		want     bool
	}{
		{"none of ours", TCP, "203.0.113.9:7", "198.51.100.9:80", untouched, false},
		{"published", TCP, "203.0.113.9:7", "203.0.113.1:8080", statusDNAT, false},
		{"published, and hidden", TCP, "10.88.0.3:7", "203.0.113.1:8080", statusDNAT | statusSNAT, false},
		{"from outside to a box", TCP, "203.0.113.9:7", "10.88.0.2:80", untouched, true},
		{"from outside to a box over IPv6", UDP, "[2001:db8:9::9]:7", "[fd88::2]:80", untouched, true},
		{"to an opening", TCP, "203.0.113.9:7", "192.0.2.2:80", untouched, false},
		{"to a range of openings", TCP, "203.0.113.9:7", "192.0.2.2:8010", untouched, false},
		{"beyond the range", TCP, "203.0.113.9:7", "192.0.2.2:8011", untouched, true},
		{"to an opening by another protocol", UDP, "203.0.113.9:7", "192.0.2.2:80", untouched, true},
		{"between boxes", TCP, "10.88.0.2:7", "10.88.0.3:80", untouched, false},
		{"between isolated boxes", TCP, "10.89.0.2:7", "10.89.0.3:80", untouched, true},
		{"neighbour discovery between isolated boxes", 58, "[fd89::2]:0", "[fd89::3]:0", untouched, false},
		{"on a link between networks", TCP, "10.89.0.2:7", "10.88.0.3:80", untouched, false},
		{"against its direction", TCP, "10.88.0.2:7", "10.89.0.3:80", untouched, true},
		{"from an internal network to the outside", TCP, "192.0.2.2:7", "203.0.113.9:80", untouched, true},
		{"from an internal network to a linked one", TCP, "192.0.2.2:7", "10.89.0.2:80", untouched, false},
		{"to the outside, masqueraded", TCP, "10.88.0.2:7", "203.0.113.9:80", statusSNAT, false},
		{"to the outside, not masqueraded", TCP, "10.88.0.2:7", "203.0.113.9:80", untouched, true},
		{"to the outside, without its fixed address", TCP, "[fd91::2]:7", "[2001:db8:9::9]:80", untouched, true},
		{"multicast", UDP, "10.88.0.2:7", "224.0.0.251:5353", untouched, false},
	} {
		f := ct.Flow{Orig: ct.Tuple{Proto: uint8(c.proto), Src: ap(c.src), Dst: ap(c.dst)}, Status: c.status}
		if got := slippedIn(nets, &f); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
