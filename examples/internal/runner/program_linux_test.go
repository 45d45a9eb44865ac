package runner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// networkEnv has the Network of a program that fixes it, in JSON.
const networkEnv = "BOXWIRE_RUN_TEST_NETWORK"

// keeper is a program that fixes the network.
func keeper() int {
	return Main(context.Background(), os.Args[1:], Program{Name: "keeper box", Network: func(context.Context) (n Network, err error) {
		if os.Getenv(networkEnv) == "" {
			return n, errors.New("nobody knows the network")
		}
		return n, json.Unmarshal([]byte(os.Getenv(networkEnv)), &n)
	}})
}

// keep runs that program on a host and waits for it. Without a Network its function fails.
func keep(t testing.TB, host *netns.NS, n *Network, args ...string) result {
	t.Helper()
	shell(t)
	cmd := host.Command(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(programEnv(), cliEnv+"=keeper")
	if n != nil {
		b, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, networkEnv+"="+string(b))
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func TestAProgramFixesTheNetwork(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	host := netnstest.New(t)
	testutil.Run(t, host, "ip", "link", "add", "tunnel0", "type", "bridge")
	testutil.Run(t, host, "ip", "addr", "add", "10.100.7.1/32", "dev", "tunnel0")
	testutil.Run(t, host, "ip", "addr", "add", "fd99:0:0:7::1/128", "dev", "tunnel0")
	testutil.Run(t, host, "ip", "link", "set", "tunnel0", "up")
	prefixes := func(all ...string) (parsed []netip.Prefix) {
		for _, p := range all {
			parsed = append(parsed, netip.MustParsePrefix(p))
		}
		return parsed
	}
	n := Network{
		Bridge: "keeper0", MTU: 1408,
		Subnets: prefixes("10.100.7.0/24", "fd99:0:0:7::/64"), Trusted: prefixes("fd99::/48", "10.100.0.0/16"),
	}
	got := keep(t, host, &n, "run", "--", "sh", "-c", "ip -br addr show eth0; ip route show default; ip link show eth0")
	for _, want := range []string{"10.100.7.2/24", "fd99:0:0:7::2/64", "default via 10.100.7.1 dev eth0", " mtu 1408 "} {
		if !strings.Contains(got.out, want) {
			t.Errorf("a box of the program shows %+v, want %q", got, want)
		}
	}
	empty := func() {
		t.Helper()
		if out := testutil.Run(t, host, "ip", "-br", "link"); strings.Contains(out, "keeper0") || strings.Contains(out, "bw-") {
			t.Errorf("links are left: %s", out)
		}
		if out := testutil.Run(t, host, "nft", "list", "tables"); strings.Contains(out, "boxwire") {
			t.Errorf("a table is left: %s", out)
		}
	}
	empty()

	// The other program of the package sees the box, and another network is none for it.
	stay := host.Command(t.Context(), "/proc/self/exe", "run", "--name", "kept-by", "--", "sh", "-c", "echo wired; exec cat")
	b, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	stay.Env, stay.Stderr = append(programEnv(), cliEnv+"=keeper", networkEnv+"="+string(b)), os.Stderr
	in, err := stay.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := stay.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stay.Start(); err != nil {
		t.Fatal(err)
	}
	defer stay.Wait()
	defer in.Close()
	// The command begins when the box has its network.
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "wired\n" {
		t.Fatalf("the box's command says %q, %v", line, err)
	}
	if got := cli(t, host, "exec", "kept-by", "true"); got != (result{}) {
		t.Errorf("exec of the other program ended with %+v", got)
	}
	if out := testutil.Run(t, host, "nft", "list", "ruleset"); !strings.Contains(out, "10.100.0.0/16") || !strings.Contains(out, "fd99::/48") {
		t.Errorf("the trusted prefixes are not in %s", out)
	}
	if all := listed(t, host); len(all) != 1 || all[0].Bridge != "keeper0" {
		t.Errorf("ls of the other program shows %+v", all)
	}
	change := func(f func(*Network)) *Network {
		other := n
		f(&other)
		return &other
	}
	for _, test := range []struct {
		n    *Network
		says string
	}{
		{change(func(o *Network) { o.Subnets = prefixes("10.100.9.0/24") }), "keeper box: subnet 10.100.9.0/24: the bridge keeper0 has [10.100.7.0/24 fd99:0:0:7::/64], for the boxes"},
		{change(func(o *Network) { o.Trusted = prefixes("10.100.0.0/15") }), "keeper box: trusted prefixes [10.100.0.0/15]: the bridge keeper0 has"},
		{change(func(o *Network) { o.Bridge = "tunnel0" }), "keeper box: bridge tunnel0: there is such a link (bridge), and keeper box has not made it"},
		{change(func(o *Network) { o.Bridge, o.Subnets = "k1", prefixes("10.100.0.0/16") }), "keeper box: subnet 10.100.0.0/16 overlaps 10.100.7.1/32 of link tunnel0\n"},
		{change(func(o *Network) { o.Subnets = nil }), "keeper box: the network of keeper0 has no subnet"},
		{change(func(o *Network) { o.Subnets = prefixes("10.100.7.0/31") }), "keeper box: subnet 10.100.7.0/31: there is no room"},
		{nil, "keeper box: nobody knows the network"},
	} {
		if got := keep(t, host, test.n, "run", "true"); got.status != 125 || !strings.HasPrefix(got.err, test.says) {
			t.Errorf("a box on %+v ended with %+v, want %q", test.n, got, test.says)
		}
	}
	// A changed MTU is for the next bridge. ip complains of names that other tests are removing.
	if got := keep(t, host, change(func(o *Network) { o.MTU = 1300 }), "run", "sh", "-c", "ip link show eth0 2>/dev/null"); got.status != 0 || got.err != "" || !strings.Contains(got.out, " mtu 1408 ") {
		t.Errorf("a box on a bridge of another MTU ended with %+v", got)
	}
	in.Close()
	stay.Wait()
	empty()
}

func TestAProgramThatFixesTheNetworkHasItsOwnUsage(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	got := keep(t, host, nil, "run", "-h")
	usage := `usage: keeper box run [flags] [--] CMD [ARG...]   run CMD in a box, wait, clean up
       keeper box exec NAME CMD [ARG...]          run CMD in a box that exists
`
	if got.status != 0 || !strings.HasPrefix(got.out, usage) || !strings.Contains(got.out, "-rate-up") || strings.Contains(got.out, "-subnet") {
		t.Errorf("run -h ended with %+v", got)
	}
	for _, test := range []struct{ args, says string }{
		{"", `keeper box: "" is none of run, exec, ls, explain, rm and gc; see keeper box run -h`},
		{"true", `"true" is none of`},
		{"run", "there is no command to run; see keeper box run -h"},
		{"run -subnet 10.0.0.0/8 true", "-subnet"},
		{"run -network none -p 80 true", "leaves nothing to set: -p, -ip, -mac, -accept-forward and rates"},
		{"rm nobody", "keeper box: there is no box nobody"},
	} {
		if got := keep(t, host, nil, strings.Fields(test.args)...); got.status != 125 || !strings.Contains(got.err, test.says) {
			t.Errorf("%q ended with %+v, want %q", test.args, got, test.says)
		}
	}
	// No network is asked for without need.
	for _, args := range []string{"run -network none true", "run -network host true", "ls", "gc"} {
		if got := keep(t, host, nil, strings.Fields(args)...); got.status != 0 || got.err != "" {
			t.Errorf("%q ended with %+v", args, got)
		}
	}
	empty(t, host)
}
