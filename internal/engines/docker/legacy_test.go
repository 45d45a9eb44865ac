package docker

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/nat"
)

// Docker that writes by iptables-legacy: its rules drop the boxes' packets, and nothing shows or changes them but
// iptables-legacy.
func TestLegacy(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "legacy")
	if out, err := m.Try("iptables-legacy", "-t", "nat", "-S"); err != nil {
		machine.Missing(t, "iptables-legacy", noLegacy{err, out})
	}
	serveAround(t, m)
	e := start(t, m)
	world(t, m, nil, e).Check(t, "Docker alone", theirs)
	before := rules(t, m)
	b := newBoxes(t, m)
	b.accept(t) // it changes nothing
	w := world(t, m, b, e)
	w.Check(t, "boxes, no rules for them", cutOff)
	for _, causes := range b.explain(t) {
		last := nat.Cause{}
		for _, c := range causes {
			if c.Kind == nat.CauseLegacyRules && strings.HasPrefix(c.Subject, "table filter of ip") {
				last = c
			}
		}
		if last.Certain || !strings.Contains(last.Text, "tables-legacy -t filter -S") {
			t.Errorf("Explain names no table of iptables-legacy: %v", causes)
		}
	}
	// What AcceptForward does for iptables-nft.
	by := func(verb func(verb, chain string) string) {
		for _, tool := range []string{"iptables-legacy", "ip6tables-legacy"} {
			head := "DOCKER-USER"
			if tool == "ip6tables-legacy" {
				head = "FORWARD" // Docker 20.10 has no DOCKER-USER there
			}
			for _, r := range []string{
				verb("I", head) + " -i eth0 -o boxwire0",
				verb("I", head) + " -i boxwire0 -m conntrack --ctstate RELATED,ESTABLISHED",
				verb("I", head) + " -o boxwire0 -m conntrack --ctstate RELATED,ESTABLISHED",
				verb("A", "FORWARD") + " -o boxwire0",
				verb("A", "FORWARD") + " -i boxwire0 -o eth0",
			} {
				m.Run(t, tool, strings.Fields(r+" -j ACCEPT")...)
			}
		}
	}
	by(func(verb, chain string) string { return "-" + verb + " " + chain })
	w.Check(t, "rules by hand", everyone)
	w.During(t, "dockerd restarts", ours, func() {
		e.d.Restart(t)
		e.back(t)
	})
	world(t, m, b, e).Check(t, "dockerd has restarted", everyone)
	by(func(_, chain string) string { return "-D " + chain })
	b.remove(t, m)
	world(t, m, nil, e).Check(t, "boxes have gone", theirs)
	after := rules(t, m)
	if strings.Contains(after, "boxwire") || strings.Count(after, "\n") != strings.Count(before, "\n") {
		t.Errorf("the rules were:\n%s\nand are:\n%s", before, after)
	}
}

// noLegacy is that the kernel has no tables of iptables-legacy, as one built without CONFIG_NETFILTER_XTABLES_LEGACY.
type noLegacy struct {
	err error
	out string
}

// Error says what iptables-legacy said.
func (e noLegacy) Error() string {
	return "the kernel has no tables for iptables-legacy: " + e.err.Error() + ": " + e.out
}

// A rule of another program that drops is named as nft names it.
func TestExplainNamesTheRule(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "nft")
	startDaemon(t, m)
	b := newBoxes(t, m)
	b.accept(t)
	m.Run(t, "iptables", "-I", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP")
	causes, err := b.gw.Explain(t.Context(), ports[0], nat.Hints{From: visitor(ports[0])})
	if err != nil || len(causes) != 1 || causes[0].Kind != nat.CauseForeignDrop {
		t.Fatalf("Explain: %v, %v", causes, err)
	}
	_, handle, ok := strings.Cut(causes[0].Subject, "# handle ")
	handle, _, _ = strings.Cut(handle, " ")
	list := m.Run(t, "nft", "-a", "list", "chain", "ip", "filter", "FORWARD")
	found := false
	for line := range strings.Lines(list) {
		found = found || strings.Contains(line, "dport 80") && strings.HasSuffix(strings.TrimSpace(line), "# handle "+handle)
	}
	if !ok || !found {
		t.Errorf("Explain blames %q, and nft lists\n%s", causes[0].Subject, list)
	}
}
