package explain

import (
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/nat"
)

// A text of package nat loses the clause that is for programs, and no other.
func TestInWords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"the host does not forward what comes in by eth0 (net.ipv4.conf.eth0.forwarding is 0): SetNetwork switches it on.": "the host does not forward what comes in by eth0 (net.ipv4.conf.eth0.forwarding is 0)",
		"the table inet x is not there: something removed it. Open, Sync or Maintain bring it back.":                       "the table inet x is not there: something removed it",
		"rule drops it: what one table drops, no other can let through; AcceptForward adds an accept before it.":           "rule drops it: what one table drops, no other can let through",
		"no program in the box listens on tcp port 81.":                                                                    "no program in the box listens on tcp port 81.",
		"the link boxwire0 to the box has no carrier: its other end is down, or no port of the bridge is up.":              "the link boxwire0 to the box has no carrier: its other end is down, or no port of the bridge is up.",
		"": "",
	} {
		if got := inWords(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// Each kind of cause has something that can be done.
func TestEveryCauseHasAdvice(t *testing.T) {
	t.Parallel()
	r := report{Host: Host{Words: Words{Box: "box", Restore: "restore", Publish: "publish", Accept: "accept", Gone: "gone", Again: "again"}}}
	for _, kind := range []nat.CauseKind{
		nat.CauseTableMissing, nat.CauseTableDamaged, nat.CauseNotPublished, nat.CauseLeadsElsewhere, nat.CauseAddressNotLocal,
		nat.CauseForeignDNAT, nat.CauseForeignDrop, nat.CauseSource, nat.CauseLegacyRules, nat.CauseInternal, nat.CausePolicy,
		nat.CauseReversePath, nat.CauseStaleFlow, nat.CauseForwardingOff, nat.CauseLocalnetOff, nat.CauseNoRoute, nat.CauseNoNetwork,
		nat.CauseOtherHost, nat.CauseLinkDown, nat.CauseNeighbourFailed, nat.CauseBridgeFilter, nat.CauseNoListener,
	} {
		for _, box := range []string{"10.88.0.2", "fd88::2"} {
			if got := r.advice(nat.Cause{Kind: kind, Subject: "link eth0", Text: "no route to x"}, netip.MustParseAddr(box), "tcp", 80); got == "" || strings.Contains(got, "%!") {
				t.Errorf("%s of %s has the advice %q", kind, box, got)
			}
		}
	}
}

func TestParseAsk(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	for text, want := range map[string]Ask{
		"":                                  {},
		"-port 8080":                        {Port: 8080},
		"-port 53/udp -from ::ffff:1.2.3.4": {Port: 53, Proto: nat.UDP, From: addr("1.2.3.4")},
		"-port 203.0.113.1:8080/tcp":        {Port: 8080, Proto: nat.TCP, Addr: addr("203.0.113.1")},
		"-port [2001:db8::1]:443/sctp":      {Port: 443, Proto: nat.SCTP, Addr: addr("2001:db8::1")},
		"-port 0.0.0.0:80":                  {Port: 80},
		"-to 192.0.2.1 web db":              {To: addr("192.0.2.1"), Boxes: []string{"web", "db"}},
	} {
		got, err := ParseAsk(strings.Fields(text), "run", "box", io.Discard)
		if err != nil || got.Port != want.Port || got.Proto != want.Proto || got.Addr != want.Addr || got.From != want.From || got.To != want.To || strings.Join(got.Boxes, " ") != strings.Join(want.Boxes, " ") {
			t.Errorf("%q is %+v (%v), want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"-port 80 web", "-port 80 -to 192.0.2.1", "-port 192.0.2.1:80 -from ::1", "-port [fe80::1%eth0]:80", "-port 80/icmp", "-from fe80::1%eth0", "-from ::ffff:0.0.0.0", "-to ::"} {
		if _, err := ParseAsk(strings.Fields(text), "run", "box", io.Discard); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if _, err := ParseAsk([]string{"-port", "80", "web"}, "run", "box", io.Discard); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a refusal is %v", err)
	}
	if _, err := ParseAsk([]string{"-h"}, "run", "box", io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h is %v", err)
	}
}

// asksFor takes what a visitor of the port would come to.
func TestAsksFor(t *testing.T) {
	t.Parallel()
	port := func(host string, last uint16) nat.Port {
		return nat.Port{Proto: nat.TCP, Host: netip.MustParseAddrPort(host), HostLast: last}
	}
	for _, test := range []struct {
		ask  string
		port nat.Port
		want bool
	}{
		{"8080", port("0.0.0.0:8080", 0), true},
		{"8080/udp", port("0.0.0.0:8080", 0), false},
		{"8085", port("0.0.0.0:8080", 8090), true},
		{"8091", port("0.0.0.0:8080", 8090), false},
		{"192.0.2.1:8080", port("0.0.0.0:8080", 0), true},
		{"192.0.2.1:8080", port("192.0.2.2:8080", 0), false},
		{"192.0.2.1:8080", port("[::]:8080", 0), false},
	} {
		ask, err := ParseAsk([]string{"-port", test.ask}, "run", "box", io.Discard)
		if err != nil || ask.asksFor(test.port) != test.want {
			t.Errorf("-port %s for %v is not %t (%v)", test.ask, test.port, test.want, err)
		}
	}
}
