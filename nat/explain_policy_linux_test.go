package nat

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// Explain names the rule that a policy lacks, where real packets are denied, and nothing where they
// pass.
func TestExplainNamesThePolicy(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	s.waitReady(t)
	serve(t, s.box, ":80")
	serve(t, s.outside, ":80")
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	if err := s.gw.Publish(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	box, out := netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("203.0.113.9")
	find := func(causes Causes, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range causes {
			if c.Kind == CausePolicy {
				return c.String()
			}
		}
		return ""
	}
	for _, c := range []struct {
		egress, ingress *Rules
		out, in         bool   // what real packets do
		outSays, inSays string // of the cause; "" for none
	}{
		{allows(t), nil, false, true, `the policy of 10.88.0.2, of "web", has no rule to let it reach 203.0.113.9.`, ""},
		{allows(t, "tcp 203.0.113.0/24 port 80"), nil, true, true, `perhaps: the policy of 10.88.0.2, of "web", has only these rules to let it reach 203.0.113.9: tcp 203.0.113.0/24 port 80.`, ""},
		{allows(t, "0.0.0.0/0"), nil, true, true, "", ""},
		{allows(t, "203.0.0.0/8 except 203.0.113.0/24"), nil, false, true, `has no rule to let it reach`, ""},
		{nil, allows(t), true, false, "", `has no rule to let 203.0.113.9 in on tcp 10.88.0.2:80.`},
		{nil, allows(t, "tcp 203.0.113.0/24 port 80"), true, true, "", ""},
		{nil, allows(t, "tcp 203.0.113.0/24 port 81"), true, false, "", "has no rule to let 203.0.113.9 in"},
	} {
		p := Policy{Box: []netip.Addr{box}, Owner: "web", Refuse: true, Egress: c.egress, Ingress: c.ingress}
		if err := s.gw.SetPolicies(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if got := reaches(t, s.box, "203.0.113.9:80"); got != c.out {
			t.Errorf("%s: out is reached: %v", p.record(), got)
		}
		if got := reaches(t, s.outside, "203.0.113.1:8080"); got != c.in {
			t.Errorf("%s: the box is reached: %v", p.record(), got)
		}
		if got := find(s.gw.ExplainOut(t.Context(), box, out)); (got == "") != (c.outSays == "") || !strings.Contains(got, c.outSays) {
			t.Errorf("%s: ExplainOut says %q, want %q", p.record(), got, c.outSays)
		}
		if got := find(s.gw.Explain(t.Context(), web, Hints{From: out})); (got == "") != (c.inSays == "") || !strings.Contains(got, c.inSays) {
			t.Errorf("%s: Explain says %q, want %q", p.record(), got, c.inSays)
		}
	}
	p := Policy{Box: []netip.Addr{box}, Owner: "web", Ingress: allows(t, "tcp 192.0.2.0/24 port 80")}
	if err := s.gw.SetPolicies(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got := find(s.gw.Explain(t.Context(), web, Hints{})); !strings.Contains(got, "has only these rules to let anyone in on tcp 10.88.0.2:80: tcp 192.0.2.0/24 port 80") {
		t.Errorf("without a visitor: %q", got)
	}
	strict := network0()
	strict.Strict = true
	if err := s.gw.SetNetwork(t.Context(), strict); err != nil {
		t.Fatal(err)
	}
	if got := find(s.gw.ExplainOut(t.Context(), box, out)); !strings.Contains(got, "is Strict and no policy with Egress names 10.88.0.2") {
		t.Errorf("strict: %q", got)
	}
}
