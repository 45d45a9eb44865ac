package nat

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// policyWorkerEnv makes the test binary a process that changes policies until it is killed.
const policyWorkerEnv = "BOXWIRE_NAT_POLICIES"

// somePolicies are policies of the boxes .2 to .5, made up. That of .2 is always among them, and allows TCP
// alone.
func somePolicies(r *rand.Rand) (all []Policy) {
	for i := 2; i < 6; i++ {
		p := Policy{Box: addrs(fmt.Sprintf("10.88.0.%d", i), fmt.Sprintf("fd88::%d", i)), Owner: "p", Refuse: r.IntN(2) == 0, Egress: &Rules{}}
		for range r.IntN(8) {
			rule := Rule{Peer: prefixes(fmt.Sprintf("203.%d.0.0/16", r.IntN(9)))[0], Proto: TCP, Port: uint16(1 + r.IntN(99))}
			if r.IntN(2) == 0 {
				rule.Except = prefixes(fmt.Sprintf("%s/24", rule.Peer.Addr()))
			}
			p.Egress.Allow = append(p.Egress.Allow, rule)
		}
		if i == 2 || r.IntN(3) > 0 {
			all = append(all, p)
		}
	}
	return all
}

// changePolicies is the main function of such a process.
func changePolicies() int {
	ctx, r := context.Background(), rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	ns, err := netns.Current()
	var gw *NAT
	if err == nil {
		gw, err = Open(ctx, ns, Options{})
	}
	for first := true; err == nil; first = false {
		switch all := somePolicies(r); {
		case first || r.IntN(4) == 0:
			err = gw.Sync(ctx, State{Networks: []Network{network0()}, Policies: all})
		case r.IntN(3) > 0:
			if err = gw.SetPolicies(ctx, all...); err == nil {
				err = gw.Grant(ctx, all[0].Box[0], time.Hour, Rule{Peer: prefixes("192.0.2.1/32")[0]})
			}
		case len(all) > 1:
			err = netns.IgnoreNotExist(gw.DeletePolicies(ctx, all[1].Box[0]))
		}
		if first {
			fmt.Println("ready")
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// A process is killed at some moment of its changes of policies. The next Sync makes exactly what a new
// table has, and what is closed all the while is open at no moment.
func TestPoliciesAreExactAfterAKill(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s, fresh := newTopology(t), newTopology(t).host
	ns := s.host
	s.waitReady(t)
	r := rand.New(rand.NewPCG(5, 6))
	if err := s.gw.Sync(t.Context(), State{Networks: []Network{network0()}, Policies: somePolicies(r)}); err != nil {
		t.Fatal(err)
	}
	p := newProber(newWireEnd(t, s.box, "eth0"), macOf(t, ns, "br0"), [2]string{"10.88.0.2", "203.0.113.9:9"}, [2]string{"fd88::2", "[2001:db8:1::9]:9"})
	p.hear(t, s.outside, "wan0")
	p.start(t)
	for i := range stress(3, 50, 200) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), policyWorkerEnv+"=1")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := netns.Do(t.Context(), ns, func(context.Context) (any, error) { return nil, cmd.Start() }); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		time.Sleep(time.Duration(r.IntN(30_000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()
		if line != "ready\n" {
			t.Fatalf("the process says %q, %v", line, err)
		}
		state := State{Networks: []Network{network0()}, Policies: somePolicies(r)}
		for _, ns := range []*netns.NS{ns, fresh} {
			gw := open(t, ns)
			if err := gw.Sync(t.Context(), state); err != nil {
				t.Fatal(err)
			}
			if err := Check(t.Context(), ns, "", state); err != nil {
				t.Errorf("round %d: %v", i, err)
			}
			gw.Close()
		}
		left, want := elementsOnly(objects(t, ns)), elementsOnly(objects(t, fresh))
		for _, set := range []string{"grant4", "grant6", "tried_out4", "tried_out6"} { // of boxes that have a policy still, and of the prober
			delete(left, set)
		}
		uncount(left)
		uncount(want)
		if same(t, fmt.Sprint("round ", i), any(left), any(want)); t.Failed() {
			return
		}
	}
	p.end()
	if n := p.closed.Load(); n > 0 {
		t.Errorf("%d of %d datagrams arrived", n, p.sent.Load())
	}
	testutil.Run(t, ns, "nft", "flush set inet boxwire egress4; flush set inet boxwire egress6")
	p.again(t)
	if !until(func() bool { return p.closed.Load() > 0 }) {
		t.Error("nothing arrives when the policies are taken away: the test proves nothing")
	}
}
