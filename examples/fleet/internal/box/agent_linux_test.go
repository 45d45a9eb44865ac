package box

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// A box starts by the file while the agent is away, and boxes that run do not notice.
func TestTheAgentIsAway(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	h := newHost(t, netnstest.New(t), stateOf(3))
	show := []string{"sh", "-c", "ip -br addr show eth0 2>/dev/null"} // ip complains of names that other tests are removing

	// Nobody knows the node.
	got := h.box("run", "true")
	if got.status != 125 || !strings.Contains(got.err, "asking the agent on "+h.socket+": no agent runs there") || !strings.Contains(got.err, "status.json: no such file") || strings.Count(got.err, "\n") != 1 {
		t.Errorf("without an agent and its file the run ended with %+v", got)
	}
	if out := testutil.Run(t, h.NS, "ip", "-br", "link"); strings.Contains(out, Bridge) {
		t.Errorf("a bridge is made all the same: %s", out)
	}

	h.agent()
	running, end := h.start("fleet-stays", "-p", "8080:80")
	if asked := h.asked.Load(); asked != 1 {
		t.Errorf("the agent was asked %d times for one box", asked)
	}
	reached := func(when string) {
		t.Helper()
		for at, want := range map[string]string{"10.100.3.2:80": "10.100.3.1", "127.0.0.1:8080": "10.100.3.1"} {
			if says := answers(h.NS, at, "fleet-stays from "+want); says != "" {
				t.Errorf("%s: %s", when, says)
			}
		}
	}
	reached("with the agent")
	before := testutil.Run(t, running, "ip", "addr", "show", "eth0")

	// It leaves its state, and goes.
	if err := status.Write(h.dir, h.state); err != nil {
		t.Fatal(err)
	}
	h.stop()
	reached("without the agent")
	got = h.box(append([]string{"run"}, show...)...)
	note := "fleet box: asking the agent on " + h.socket + ": no agent runs there: connect: no such file or directory; " + status.Path(h.dir) + " says what the agent last knew\n"
	if got.status != 0 || !strings.Contains(got.out, "10.100.3.3/24") || !strings.Contains(got.out, "fd99:0:0:3::3/64") || got.err != note {
		t.Errorf("without the agent a box ended with %+v, want its addresses and the note %q", got, note)
	}
	for _, args := range []string{"ls", "exec fleet-stays true", "gc", "run -network none true", "run -network box:fleet-stays true"} {
		if got := h.box(strings.Fields(args)...); got.status != 0 || got.err != "" {
			t.Errorf("without the agent %s ended with %+v", args, got)
		}
	}

	// One that hangs is as one that is away.
	over := make(chan struct{})
	h.answer(func(http.ResponseWriter, *http.Request) { <-over })
	got = h.box(append([]string{"run"}, show...)...)
	if got.status != 0 || !strings.Contains(got.out, "10.100.3.3/24") || !strings.Contains(got.err, "deadline exceeded") {
		t.Errorf("with an agent that hangs a box ended with %+v", got)
	}
	close(over)
	h.stop()

	// It is back.
	h.agent()
	if got = h.box(append([]string{"run"}, show...)...); got.status != 0 || !strings.Contains(got.out, "10.100.3.3/24") || got.err != "" {
		t.Errorf("with the agent again a box ended with %+v", got)
	}
	reached("with the agent again")
	if after := testutil.Run(t, running, "ip", "addr", "show", "eth0"); after != before {
		t.Errorf("the box that ran all the time has\n%s\nit had\n%s", after, before)
	}

	// The node's prefix is another one now: that is not for boxes beside those of the old one.
	h.state.Prefixes = stateOf(4).Prefixes
	h.agent()
	got = h.box("run", "true")
	if got.status != 125 || !strings.Contains(got.err, "subnet 10.100.4.0/24: the bridge fleet0 has [10.100.3.0/24 fd99:0:0:3::/64], for the boxes that are on it") {
		t.Errorf("with another prefix a box ended with %+v", got)
	}
	if got := h.box("rm", "fleet-stays"); got != (result{}) {
		t.Errorf("rm ended with %+v", got)
	}
	end()
	if got = h.box(append([]string{"run"}, show...)...); got.status != 0 || !strings.Contains(got.out, "10.100.4.2/24") {
		t.Errorf("with another prefix, and no box of the old one, a box ended with %+v", got)
	}
	if out := testutil.Run(t, h.NS, "ip", "-br", "link"); strings.Contains(out, Bridge) || strings.Contains(out, "bw-") {
		t.Errorf("links are left: %s", out)
	}
	if out := testutil.Run(t, h.NS, "nft", "list", "ruleset"); strings.TrimSpace(out) != "" {
		t.Errorf("rules are left: %s", out)
	}
}

func TestWhatCannotWorkIsSaid(t *testing.T) {
	t.Parallel()
	h := newHost(t, netnstest.New(t), stateOf(5))
	h.state.Prefixes = nil
	h.agent()
	for _, test := range []struct{ args, says string }{
		{"run true", "fleet box: node n5 of the fleet lab has no prefix yet\n"},
		{"run", "fleet box: there is no command to run; see fleet box run -h\n"},
		{"run -subnet 10.0.0.0/8 true", "fleet box: flag provided but not defined: -subnet\n"},
		{"true", `fleet box: "true" is none of run, exec, ls, explain, rm and gc; see fleet box run -h` + "\n"},
		{"", `fleet box: "" is none of run, exec, ls, explain, rm and gc; see fleet box run -h` + "\n"},
		{"-nosuch", "fleet box: flag provided but not defined: -nosuch\n"},
		{"rm nobody", "fleet box: there is no box nobody\n"},
	} {
		if got := h.box(strings.Fields(test.args)...); got != (result{err: test.says, status: 125}) {
			t.Errorf("fleet box %s ended with %+v, want %q", test.args, got, test.says)
		}
	}
	for args, begins := range map[string]string{"-h": usage, "run -h": "usage: fleet box run [flags] [--] CMD [ARG...]   run CMD in a box, wait, clean up\n"} {
		if got := h.box(strings.Fields(args)...); got.status != 0 || got.err != "" || !strings.HasPrefix(got.out, begins) {
			t.Errorf("fleet box %s ended with %+v, want %q", args, got, begins)
		}
	}
	// The agent's answer is refused as a whole, and the file, too.
	h.state = stateOf(5)
	h.state.MTU = 1
	h.agent()
	if err := os.WriteFile(status.Path(h.dir), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := h.box("run", "true"); got.status != 125 || !strings.Contains(got.err, "mtu 1: want 576 to 65535") || !strings.Contains(got.err, "reading "+status.Path(h.dir)) {
		t.Errorf("with garbage a box ended with %+v", got)
	}
}
