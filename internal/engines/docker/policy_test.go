package docker

import "testing"

// An administrator's policies that drop stay in force for what they are about: the host's own services. Published ports
// are forwarded.
func TestDropPolicies(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "nft")
	serveAround(t, m)
	e := start(t, m)
	b := newBoxes(t, m)
	for _, tool := range []string{"iptables", "ip6tables"} {
		m.Run(t, tool, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
		m.Run(t, tool, "-A", "INPUT", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
		m.Run(t, tool, "-P", "INPUT", "DROP")
		m.Run(t, tool, "-P", "FORWARD", "DROP")
	}
	m.Run(t, "ip6tables", "-A", "INPUT", "-p", "icmpv6", "-j", "ACCEPT")
	before := rules(t, m)
	b.accept(t)
	world(t, m, b, e).Check(t, "INPUT and FORWARD drop", `
		             lan   host  web   db    open  shut  inner
		tcp pub4     web   web   web   web   web   web   -
		udp pub4     web   web   web   web   web   web   -
		tcp pub6     web   web   web   web   web   web   -
		udp pub6     web   web   web   web   web   web   -
		tcp web4     -     web   web   web   -     -     -
		tcp web6     -     web   web   web   -     -     -
		tcp dpub4    open  open  open  open  -     -     -
		tcp dpub6    open  open  open  open  -     -     -
		tcp shut4    -     shut  -     -     shut  shut  -
		tcp shut6    -     shut  -     -     shut  shut  -
		tcp inner4   -     inner -     -     -     -     inner
		tcp inner6   -     inner -     -     -     -     inner
		tcp lan4     lan   lan   lan   lan   lan   lan   -
		tcp lan6     lan   lan   lan   lan   lan   lan   -
		tcp host4    -     host  -     -     -     -     -
	`)
	if err := b.gw.RevokeForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	unchanged(t, m, before)
}
