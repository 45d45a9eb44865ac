package nat

import (
	"fmt"
	"strings"
	"testing"
)

// flowEnd is a flow that something ends, and who hears it at its other end.
type flowEnd struct {
	dialogue
	server *receiver
}

// passes reports whether what is sent now arrives. mark is a dialogue by the same link, after which it has.
func (f flowEnd) passes(t *testing.T, mark dialogue) bool {
	t.Helper()
	text := newText()
	for range 5 {
		f.Write([]byte(text))
	}
	for range 50 {
		if f.server.has(text) {
			return true
		}
		mark.answered(t)
	}
	return f.server.has(text)
}

// A link that leaves its bridge, moves to another one or is renamed takes its flows out of the flowtable,
// as far as Maintain sees it: the rules and the bridge drop them, as without the option.
func TestFlowsEndWithTheWayOfTheirLinks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, ip string }{
		{"the port leaves its bridge", "link set box0 nomaster"},
		{"the port moves to another network", "link set box0 master br1"},
		{"the bridge is down", "link set br0 down"},
		{"the port is down", "link set box0 down"},
	} {
		for _, on := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, %t", c.name, on), func(t *testing.T) {
				t.Parallel()
				s := newFlowing(t, nil)
				far := network1()
				far.Internal = true
				far.Flowtable = on
				net := network0()
				net.Flowtable = on
				guard := Guard{Port: "box0", MAC: macOf(t, s.box, "eth0"), Box: addrs("10.88.0.2", "fd88::2"), Owner: "web"}
				state := State{Networks: []Network{net, far}, Ports: flowPorts(), Guards: []Guard{guard}}
				maintain(t, newMaintainer(s.gw, always(state)))
				hearing(t, s.host, TCP, "203.0.113.1:70")
				mark := begin(t, s.outside, TCP, "203.0.113.1:70")
				var all []flowEnd
				for _, at := range [][2]string{{"10.88.0.2:80", "203.0.113.1:8080"}, {"[fd88::2]:80", "[2001:db8:1::1]:8080"}} {
					all = append(all, flowEnd{server: hearing(t, s.box, UDP, at[0]), dialogue: begin(t, s.outside, UDP, at[1])})
				}
				for _, at := range []string{"203.0.113.9:90", "[2001:db8:1::9]:90"} {
					all = append(all, flowEnd{server: hearing(t, s.outside, UDP, at), dialogue: begin(t, s.box, UDP, at)})
				}
				for _, f := range all {
					if f.answered(t); on {
						f.offloaded(t, s.gw)
					}
				}
				for line := range strings.SplitSeq(c.ip, "; ") {
					ip(t, s.host, line)
				}
				for _, f := range all {
					missed := 0
					if !until(func() bool {
						if missed++; f.passes(t, mark) {
							missed = 0
						}
						return missed == 5
					}) {
						t.Errorf("%v to %v goes on", f.local, f.RemoteAddr())
					}
				}
			})
		}
	}
}
