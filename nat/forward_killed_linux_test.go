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

// networkWorkerEnv makes the test binary a process whose network comes and goes, in the table of that name,
// until it is killed.
const networkWorkerEnv = "BOXWIRE_NAT_NETWORKS"

// changeNetworks is the main function of such a process.
func changeNetworks(table string) int {
	ctx, r := context.Background(), rand.New(rand.NewPCG(uint64(os.Getpid()), 2))
	net := network0()
	if table == "second" {
		net = network1()
	}
	fmt.Println("ready")
	for {
		ns, err := netns.Current()
		var gw *NAT
		if err == nil {
			gw, err = Open(ctx, ns, Options{Name: table})
		}
		if err == nil {
			if r.IntN(2) == 0 {
				err = gw.SetNetwork(ctx, net)
			} else {
				err = gw.Sync(ctx, State{Networks: []Network{net}})
			}
		}
		if err == nil {
			switch r.IntN(3) {
			case 0:
				err = gw.DeleteNetwork(ctx, net.Interface)
			case 1:
				err = gw.Sync(ctx, State{})
			default:
				err = gw.Delete(ctx)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, table, err)
			return 1
		}
		gw.Close()
		ns.Close()
	}
}

// Two programs whose networks come and go are killed at some moment. At no moment is the host a router for
// strangers, and when both tables are deleted its links are what they were.
func TestTwoProgramsThatAreKilledLeaveNoRouter(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := wire(t)
	s.waitReady(t)
	before := forwards(t, s.host) + sysctl(t, s.host, "ipv4/conf/up1/forwarding") + sysctl(t, s.host, "ipv6/conf/up1/forwarding")
	r := rand.New(rand.NewPCG(7, 8))
	p := newProber(newWireEnd(t, s.beyond, "wan0"), macOf(t, s.host, "up1"), [2]string{"198.51.100.9", "203.0.113.9:9"}, [2]string{"2001:db8:2::9", "[2001:db8:1::9]:9"})
	p.hear(t, s.outside, "wan0")
	p.start(t)
	for i := range stress(3, 8, 200) {
		var cmds []*exec.Cmd
		for _, table := range []string{"boxwire", "second"} {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), networkWorkerEnv+"="+table)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := netns.Do(t.Context(), s.host, func(context.Context) (any, error) { return nil, cmd.Start() }); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, cmd)
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
				t.Fatalf("the process says %q, %v", line, err)
			}
		}
		for _, cmd := range cmds {
			time.Sleep(time.Duration(r.IntN(200_000)) * time.Microsecond)
			cmd.Process.Kill()
			if cmd.Wait(); cmd.ProcessState.Exited() {
				t.Errorf("round %d: a process ended by itself", i)
			}
		}
		for _, j := range r.Perm(2) {
			if err := openWith(t, s.host, Options{Name: []string{"boxwire", "second"}[j]}).Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if after := forwards(t, s.host) + sysctl(t, s.host, "ipv4/conf/up1/forwarding") + sysctl(t, s.host, "ipv6/conf/up1/forwarding"); after != before {
			t.Fatalf("round %d: the links forwarded as %s, and do as %s", i, before, after)
		}
	}
	p.end()
	if n := p.closed.Load(); n > 0 {
		t.Errorf("%d of %d datagrams arrived", n, p.sent.Load())
	}
	testutil.Run(t, s.host, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	p.again(t)
	if !until(func() bool { return p.closed.Load() > 0 }) {
		t.Error("nothing arrives at a router: the test proves nothing")
	}
}
