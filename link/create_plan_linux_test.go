package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// What Create sends, by name: for each step the side, and for each of its requests
// the type, the flag of the link and the attributes. A step that sends goes in one
// send.
func TestPlan(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	v4, dual := prefixes("10.0.0.2/24"), prefixes("10.0.0.2/24", "fd00::2/64")
	mac := hw("02:00:00:00:00:01")
	veth := func(s Spec, peer Spec) Spec {
		s.Name, peer.Name = "a", "b"
		s.Kind = Veth{Peer: peer}
		return s
	}
	of := func(s Spec, k Kind) Spec {
		s.Name, s.Kind = "a", k
		return s
	}
	const (
		pair  = "create ECHO NEWLINK IFNAME NUM_TX_QUEUES NUM_RX_QUEUES LINKINFO"
		upped = "create ECHO NEWLINK up IFNAME NUM_TX_QUEUES NUM_RX_QUEUES LINKINFO"
	)
	for _, c := range []struct {
		name  string
		spec  Spec
		after conditions
		want  []string
	}{
		{"bridge", of(Spec{}, Bridge{}), conditions{}, []string{"create ECHO NEWLINK IFNAME LINKINFO", "read echo"}},
		{"bridge that is up, with an address", of(Spec{Up: true, Addrs: v4}, Bridge{}), conditions{}, []string{
			"create ECHO NEWLINK up IFNAME LINKINFO", "read echo", "outer: NEWADDR 10.0.0.2"}},
		{"bridge with an MTU", of(Spec{MTU: 1400, Up: true}, Bridge{}), conditions{}, []string{
			"create ECHO NEWLINK up IFNAME MTU(1399) LINKINFO compare", "read echo compare", "outer: NEWLINK MTU(1400); GETLINK compare"}},
		{"bridge with the smallest MTU", of(Spec{MTU: minMTU}, Bridge{}), conditions{}, []string{
			"create ECHO NEWLINK IFNAME MTU(69) LINKINFO compare", "read echo compare", "outer: NEWLINK MTU(68); GETLINK compare"}},
		{"bridge with IPv6", of(Spec{MAC: mac, Up: true, Addrs: dual}, Bridge{}), conditions{}, []string{
			"create ECHO NEWLINK IFNAME ADDRESS LINKINFO", "read echo",
			"outer: NEWADDR fe80::ff:fe00:1; NEWLINK up; NEWADDR 10.0.0.2; NEWADDR fd00::2; GETLINK", "outer: wait 2"}},
		{"pair that is down", veth(Spec{}, Spec{}), conditions{}, []string{pair, "read echo"}},
		{"usual attachment", veth(Spec{Up: true, Master: Ref{Index: 7}}, Spec{Up: true, Addrs: v4}), conditions{}, []string{
			upped + " MASTER; GETLINK", "read echo of a bridge's port", "inner: NEWLINK up; NEWADDR 10.0.0.2"}},
		{"usual attachment, dual stack", veth(Spec{Up: true, Master: Ref{Index: 7}}, Spec{MAC: mac, Up: true, Addrs: dual}), conditions{}, []string{
			"create NEWLINK up IFNAME NUM_TX_QUEUES NUM_RX_QUEUES LINKINFO MASTER", "read",
			"inner: NEWADDR fe80::ff:fe00:1; NEWLINK up; NEWADDR 10.0.0.2; NEWADDR fd00::2", "inner: wait 2"}},
		{"the same without link-local addresses", veth(Spec{Up: true, Master: Ref{Index: 7}}, Spec{MAC: mac, Up: true, Addrs: dual, IPv6: IPv6Conf{AddrGenMode: new(AddrGenNone)}}), conditions{}, []string{
			"create NEWLINK up IFNAME NUM_TX_QUEUES NUM_RX_QUEUES LINKINFO MASTER", "read",
			"inner: NEWLINK AF_SPEC; NEWLINK up; NEWADDR 10.0.0.2; NEWADDR fd00::2", "inner: wait 1"}},
		{"the same with detection", veth(Spec{}, Spec{MAC: mac, Up: true, DAD: true, Addrs: dual}), conditions{}, []string{
			pair, "read echo", "inner: NEWLINK up; NEWADDR 10.0.0.2; NEWADDR fd00::2"}},
		{"peer with a master", veth(Spec{Up: true}, Spec{Up: true, Master: Ref{Index: 9}}), conditions{}, []string{
			upped, "read echo", "inner: NEWLINK MASTER; NEWLINK up"}},
		{"alias of either end", veth(Spec{Up: true, Alias: "x"}, Spec{Up: true, Alias: "y"}), conditions{}, []string{
			pair, "read echo", "outer: NEWLINK IFALIAS; NEWLINK up", "inner: NEWLINK IFALIAS; NEWLINK up"}},
		{"port options", veth(Spec{Up: true, Master: Ref{Index: 7}, Port: PortOptions{Isolated: new(true)}}, Spec{}), conditions{}, []string{
			pair + " MASTER; GETLINK", "read echo of a bridge's port", "outer: SETLINK PROTINFO; NEWLINK up; GETLINK compare"}},
		{"alternative names", veth(Spec{AltNames: []string{"x", "y"}}, Spec{Up: true}), conditions{}, []string{
			pair, "read echo", "outer: NEWLINKPROP PROP_LIST", "inner: NEWLINK up"}},
		{"settings of IPv4", veth(Spec{IPv4: IPv4Conf{Forwarding: new(true)}}, Spec{}), conditions{}, []string{
			pair, "read echo", "outer: NEWLINK AF_SPEC; GETLINK compare"}},
		{"sysctls", veth(Spec{}, Spec{Up: true, Alias: "x", Addrs: v4, IPv6: IPv6Conf{AcceptRA: new(0)}}), conditions{}, []string{
			pair, "read echo", "inner: NEWLINK IFALIAS", "inner: accept_ra 0", "inner: NEWLINK up; NEWADDR 10.0.0.2"}},
		{"sysctls alone", veth(Spec{}, Spec{Up: true, IPv6: IPv6Conf{AcceptRA: new(0)}}), conditions{}, []string{
			pair, "read echo", "inner: accept_ra 0", "inner: NEWLINK up"}},
		{"port of a bond", of(Spec{Up: true, Master: Ref{Index: 7}, BondPort: BondPort{Queue: new(uint16(1))}}, Dummy{}), conditions{}, []string{
			"create ECHO NEWLINK IFNAME LINKINFO MASTER; GETLINK", "read echo of a bridge's port", "outer: master is a bond",
			"outer: NEWLINK LINKINFO; NEWLINK up; GETLINK compare"}},
		{"bond refuses a port that is up", veth(Spec{Up: true, Master: Ref{Index: 7}}, Spec{Up: true}), conditions{joinsDown: true}, []string{
			pair + " MASTER; GETLINK", "read echo of a bridge's port", "outer: NEWLINK up", "inner: NEWLINK up"}},
		{"bond", of(Spec{Up: true}, Bond{Mode: new(BondActiveBackup), MIIMonitor: new(100 * time.Millisecond)}), conditions{}, []string{
			"create ECHO NEWLINK up IFNAME LINKINFO compare", "read echo compare"}},
		{"VLAN", of(Spec{Parent: Ref{Index: 3}, Up: true}, VLAN{ID: 5}), conditions{}, []string{
			"create ECHO NEWLINK up IFNAME LINK LINKINFO compare", "read echo compare"}},
		{"macvlan in a box", of(Spec{Parent: Ref{Index: 3}, Up: true, Addrs: v4}, Macvlan{Mode: MacvlanBridge}), conditions{moved: true}, []string{
			"create NEWLINK up IFNAME LINK LINKINFO NET_NS_FD compare", "read compare", "outer: NEWADDR 10.0.0.2"}},
		{"ifb of a limit", of(Spec{Up: true, TxQueueLen: new(32)}, IFB{}), conditions{}, []string{
			"create ECHO NEWLINK up IFNAME TXQLEN LINKINFO compare", "read echo compare"}},
		{"tap", of(Spec{MAC: mac, MTU: 1400, Master: Ref{Index: 7}, Up: true, Addrs: v4}, Tun{Tap: true, Persist: true}), conditions{}, []string{
			"tun", "read", "persist", "outer: NEWLINK IFNAME MTU(1400) ADDRESS MASTER; NEWLINK up; NEWADDR 10.0.0.2; GETLINK compare",
			"outer: address " + mac.String()}},
		{"tun that goes with its descriptors", of(Spec{}, Tun{}), conditions{}, []string{
			"tun", "read", "outer: NEWLINK IFNAME; GETLINK compare"}},
		{"everything", veth(everything("a", 7), Spec{}), conditions{}, []string{
			"create ECHO NEWLINK IFNAME MTU(1400) ADDRESS GROUP TXQLEN NUM_TX_QUEUES NUM_RX_QUEUES GSO_MAX_SIZE GSO_MAX_SEGS LINKINFO MASTER; GETLINK compare",
			"read echo of a bridge's port compare", "outer: NEWLINK IFALIAS AF_SPEC; SETLINK PROTINFO; NEWLINKPROP PROP_LIST",
			"outer: accept_ra 0; proxy_ndp 1; dad_transmits 0", "outer: NEWLINK up; NEWADDR 192.0.2.1; NEWADDR 2001:db8::1; GETLINK compare", "outer: wait 1"}},
	} {
		var got []string
		o := declare(c.spec.Kind)
		for _, s := range plan(&c.spec, &o, c.after) {
			got = append(got, describeStep(&s))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", c.name, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
	}
}

func describeStep(s *step) string {
	var words []string
	switch s.kind {
	case stepTun:
		return "tun"
	case stepPersist:
		return "persist"
	case stepRead:
		text := "read" + map[echoed]string{echoAlways: " echo", echoOfBridgePort: " echo of a bridge's port"}[s.echoed]
		if s.expected != nil {
			text += " compare"
		}
		return text
	case stepBond:
		words = []string{"master is a bond"}
	case stepSysctl:
		for _, v := range s.sysctls {
			words = append(words, v.name+" "+v.text())
		}
	case stepMAC:
		words = []string{"address " + s.mac.String()}
	case stepWait:
		words = []string{fmt.Sprint("wait ", len(s.addrs))}
	}
	for i := range s.reqs {
		words = append(words, describeRequest(&s.reqs[i]))
	}
	text := strings.Join(words, "; ")
	if s.expected != nil {
		text += " compare"
	}
	switch {
	case s.kind != stepCreate:
		return map[side]string{outer: "outer: ", inner: "inner: "}[s.side] + text
	case s.reqs[0].Flags&unix.NLM_F_ECHO != 0:
		return "create ECHO " + text
	}
	return "create " + text
}

func describeRequest(r *nl.Request) string {
	words := []string{map[uint16]string{
		unix.RTM_NEWLINK: "NEWLINK", unix.RTM_GETLINK: "GETLINK", unix.RTM_SETLINK: "SETLINK", unix.RTM_NEWADDR: "NEWADDR", unix.RTM_NEWLINKPROP: "NEWLINKPROP",
	}[r.Type]}
	switch r.Type {
	case unix.RTM_GETLINK:
		return words[0]
	case unix.RTM_NEWADDR:
		for w := nl.Walk(r.Body[unix.SizeofIfAddrmsg:]); w.Next(); {
			if w.Type() == unix.IFA_ADDRESS {
				a, _ := netip.AddrFromSlice(w.Data())
				words = append(words, a.String())
			}
		}
		return strings.Join(words, " ")
	}
	if binary.NativeEndian.Uint32(r.Body[8:])&unix.IFF_UP != 0 {
		words = append(words, "up")
	}
	for w := nl.Walk(r.Body[unix.SizeofIfInfomsg:]); w.Next(); {
		name := strings.TrimPrefix(r.Names([]uint16{w.Type()}), "IFLA_")
		if w.Type() == unix.IFLA_MTU {
			name += fmt.Sprintf("(%d)", w.U32())
		}
		words = append(words, name)
	}
	return strings.Join(words, " ")
}
