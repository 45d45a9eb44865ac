package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/nat"
)

// finding turns a cause into words for people who do not call the library.
func (r *report) finding(c nat.Cause, box netip.Addr, proto string, port uint16) finding {
	return finding{text: inWords(c.Text), todo: r.advice(c, box, proto, port), certain: c.Certain}
}

// calls are what texts of package nat name for programs that call it.
var calls = []string{"Open", "Sync", "Maintain", "SetNetwork", "AddNetwork", "AcceptForward", "SetPolicies", "Publish", "Network."}

// inWords leaves out the last clause of a cause if it names a call of the library.
func inWords(text string) string {
	at, end := -1, 0
	for _, sign := range []string{": ", "; ", ". "} {
		if i := strings.LastIndex(text, sign); i > at {
			at, end = i, i+len(sign)
		}
	}
	if at < 0 || !slices.ContainsFunc(calls, func(call string) bool {
		return strings.HasPrefix(text[end:], call) || strings.Contains(text[end:], " "+call)
	}) {
		return text
	}
	return text[:at]
}

// network is the link of the network that has the box's address.
func (r *report) network(box netip.Addr) (name string, ok bool) {
	for _, n := range r.networks {
		for _, s := range n.Subnets {
			if s.Contains(box) {
				return n.Interface, true
			}
		}
	}
	return "LINK", false
}

// advice says what to do about a cause.
func (r *report) advice(c nat.Cause, box netip.Addr, proto string, port uint16) string {
	name, _ := strings.CutPrefix(c.Subject, "link ")
	w := r.Words
	net, _ := r.network(box)
	switch c.Kind {
	case nat.CauseTableMissing, nat.CauseTableDamaged, nat.CauseNoNetwork:
		return w.Restore
	case nat.CauseNotPublished:
		return w.Publish
	case nat.CauseLeadsElsewhere:
		return "ask for the port that leads there, or publish this one anew"
	case nat.CauseAddressNotLocal:
		return "use an address of the host, as ip addr lists them"
	case nat.CauseForeignDNAT:
		return "remove that rule, or publish another port of the host"
	case nat.CauseForeignDrop:
		return r.letThrough(c, net)
	case nat.CauseLegacyRules:
		return fmt.Sprintf("look at these rules, and accept in the chain FORWARD what has %s as its link, before what drops", net)
	case nat.CauseSource:
		return "ask from where that address belongs"
	case nat.CauseInternal:
		return "put what needs the outside into a network that is not internal"
	case nat.CausePolicy:
		return "add a rule to the policy"
	case nat.CauseReversePath:
		return fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", name)
	case nat.CauseStaleFlow:
		return fmt.Sprintf("end the old connections: conntrack -D -p %s --dport %d", proto, port)
	case nat.CauseForwardingOff:
		if box.Is4() {
			return fmt.Sprintf("sysctl -w net.ipv4.conf.%s.forwarding=1, and find the program that switched it off", name)
		}
		return "set that to 1 with sysctl -w, and find the program that switched it off"
	case nat.CauseLocalnetOff:
		return fmt.Sprintf("sysctl -w net.ipv4.conf.%s.route_localnet=1", name)
	case nat.CauseNoRoute:
		if strings.Contains(c.Text, "default route") || strings.Contains(c.Text, "no route to") && !strings.Contains(c.Text, "box's address") {
			return "give the host a route there, as ip route shows them"
		}
		return w.Restore
	case nat.CauseLinkDown:
		if strings.Contains(c.Text, "does not exist") {
			return w.Restore
		}
		return fmt.Sprintf("look at its ports with ip link show master %[1]s, and bring up what is down: ip link set %[1]s up", name)
	case nat.CauseNeighbourFailed:
		return w.Again
	case nat.CauseBridgeFilter:
		return "sysctl -w net.bridge.bridge-nf-call-iptables=0, if no other program needs it"
	case nat.CauseNoListener:
		return fmt.Sprintf("start the program in the %s, or have it listen on all addresses, as ss -ln shows there", w.Box)
	case nat.CauseOtherHost:
		return "look at the host that has it"
	}
	return ""
}

// letThrough says how the firewall of another program lets through what it drops.
func (r *report) letThrough(c nat.Cause, net string) string {
	_, chain, _ := strings.Cut(c.Subject, "chain ")
	part := strings.Fields(chain)
	if len(part) != 3 {
		return "let through there what has " + net + " as its link"
	}
	family, table, name := part[0], part[1], part[2]
	switch {
	case table == "firewalld":
		return fmt.Sprintf("have firewalld trust the link: firewall-cmd --permanent --zone=trusted --add-interface=%s; firewall-cmd --reload", net)
	case strings.HasPrefix(name, "ufw"):
		return fmt.Sprintf("ufw route allow in on %[1]s; ufw route allow out on %[1]s", net)
	case strings.Contains(c.Text, "AcceptForward"):
		return r.Words.Accept
	}
	add := fmt.Sprintf("let it through there: nft insert rule %[1]s %[2]s %[3]s iifname %[4]q accept; nft insert rule %[1]s %[2]s %[3]s oifname %[4]q accept", family, table, name, net)
	var handle int
	if n, _ := fmt.Sscanf(c.Subject, "rule # handle %d", &handle); n == 1 {
		add += fmt.Sprintf("; or remove the rule: nft delete rule %s %s %s handle %d", family, table, name, handle)
	}
	return add
}
