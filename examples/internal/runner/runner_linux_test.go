package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil/boxtest"
	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// cliEnv makes the test binary the program itself, or a box's command.
const cliEnv = "BOXWIRE_RUN_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(cliEnv) {
	case "run":
		os.Exit(Main(context.Background(), os.Args[1:], Program{}))
	case "keeper":
		os.Exit(keeper())
	case "serve":
		serve()
	default:
		netnstest.Main(m)
	}
}

// serve is a command for boxes: it answers every request with its argument.
func serve() {
	name := os.Args[len(os.Args)-1]
	err := http.ListenAndServe(":80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) }))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// result is how a run has ended.
type result struct {
	out, err string
	status   int
}

// shell skips a test on a machine without a shell and the programs that come with
// it, which the tests run in boxes.
func shell(t testing.TB) {
	t.Helper()
	tool.Path(t, "sh")
}

// cli runs the program on a host and waits for it.
func cli(t testing.TB, host *netns.NS, args ...string) result {
	t.Helper()
	shell(t)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	cmd := command(ctx, host, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %q: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func command(ctx context.Context, host *netns.NS, args ...string) *netns.Cmd {
	cmd := host.Command(ctx, "/proc/self/exe", args...)
	cmd.Env = programEnv()
	return cmd
}

// programEnv makes the test binary the program. With the race detector it would
// wait a second each time before it ends.
func programEnv() []string {
	return append(os.Environ(), cliEnv+"=run", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
}

// start starts a box that serves HTTP on port 80 and waits until it is listed.
func start(t testing.TB, host *netns.NS, name string, args ...string) *netns.Cmd {
	t.Helper()
	shell(t)
	args = append(append([]string{"--name", name}, args...), "--", "/usr/bin/env", cliEnv+"=serve", "/proc/self/exe", name)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args[len(args)-2] = exe
	cmd := command(context.Background(), host, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		once.Do(func() { cmd.Process.Signal(unix.SIGTERM); <-ended })
	})
	boxtest.Within(t, func() string {
		select {
		case <-ended:
			t.Fatalf("run --name %s has ended: %s", name, stderr.String())
		default:
		}
		if got := cli(t, host, "exec", name, "true"); got.status != 0 {
			return got.err
		}
		return boxtest.Answers(host, address(t, host, name), name)
	})
	return cmd
}

// address is the first address of a box.
func address(t testing.TB, host *netns.NS, name string) string {
	t.Helper()
	for _, b := range listed(t, host) {
		if b.Name == name && len(b.Addrs) > 0 {
			return b.Addrs[0].Addr().String()
		}
	}
	return ""
}

func listed(t testing.TB, host *netns.NS) (all []box) {
	t.Helper()
	got := cli(t, host, "ls", "-json")
	if got.status != 0 {
		t.Fatalf("ls: %+v", got)
	}
	if err := json.Unmarshal([]byte(got.out), &all); err != nil {
		t.Fatalf("ls -json: %v in %q", err, got.out)
	}
	return all
}

// empty fails the test if anything is left on the host.
func empty(t testing.TB, host *netns.NS) {
	t.Helper()
	links, err := link.List(context.WithoutCancel(t.Context()), host, link.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name != "lo" && l.Kind != "" {
			t.Errorf("link %v is left", l)
		}
	}
	if boxes := listed(t, host); len(boxes) > 0 {
		t.Errorf("boxes are left: %+v", boxes)
	}
	out, err := host.Command(context.WithoutCancel(t.Context()), "nft", "list", "tables").Output()
	if err == nil && strings.Contains(string(out), "boxwire") {
		t.Errorf("a table is left: %s", out)
	}
}

func TestARunPassesStatusAndOutputOnAndLeavesNothing(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	got := cli(t, host, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	if got != (result{"out\n", "err\n", 7}) {
		t.Errorf("the run ended with %+v", got)
	}
	empty(t, host)
}

func TestStatusesAreThoseOfShells(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	for _, test := range []struct {
		want int
		args []string
		says string
	}{
		{0, []string{"true"}, ""},
		{1, []string{"false"}, ""},
		{126, []string{"/etc/passwd"}, "permission denied"},
		{127, []string{"/no/such/command"}, "no such file"},
		{127, []string{"no-such-command"}, "not found"},
		{128 + 15, []string{"sh", "-c", "kill -TERM $$"}, ""},
		{125, []string{"--network", "elsewhere", "true"}, "elsewhere"},
		{125, []string{"--name", "a/b", "true"}, "a/b"},
		{125, []string{"--subnet", "10.0.0.0/31", "true"}, "no room"},
		{125, []string{"--ip", "192.0.2.1", "true"}, "none of the subnets"},
		{125, []string{"--ip", "10.88.0.1", "true"}, "gateway"},
		{125, []string{"--network", "none", "-p", "80:80", "true"}, "-p"},
		{125, []string{"--network", "box:nobody", "true"}, "no box nobody"},
		{125, []string{"-p", "0:80", "true"}, "is no port"},
		{125, []string{"--name", "web"}, "no command"},
		{125, []string{"--no-such-flag", "true"}, "no-such-flag"},
		{125, []string{"--ip", "10.88.0.300", "true"}, "10.88.0.300"},
		{125, []string{"--mac", "01:00:00:00:00:01", "true"}, "multicast"},
		{125, []string{"--mtu", "20", "true"}, "MTU 20"},
		{125, []string{"--bridge", "lo", "true"}, "lo"},
		{125, []string{"--bridge", "sixteen-letters-", "true"}, "sixteen-letters-"},
		{125, []string{"--rate-up", "3", "true"}, "no rate"},
		{125, []string{"-p", "[::1]:80:80", "true"}, "::1"},
		{125, []string{"-p", "80-90:80", "true"}, "different lengths"},
		{125, []string{"--network", "none", "--subnet", "10.1.0.0/24", "true"}, "-subnet"},
		{125, []string{"exec", "nobody", "true"}, "no box nobody"},
		{125, []string{"exec", "nobody"}, "a command"},
		{125, []string{"rm", "nobody"}, "no box nobody"},
		{125, []string{"rm"}, "no name"},
		{125, []string{"ls", "nobody"}, "nobody"},
		{125, []string{"gc", "nobody"}, "nobody"},
	} {
		got := cli(t, host, test.args...)
		if got.status != test.want || !strings.Contains(got.err, test.says) {
			t.Errorf("run %q ended with %+v, want status %d and %q", test.args, got, test.want, test.says)
		}
		if got.status == 125 && strings.Count(got.err, "\n") != 1 {
			t.Errorf("run %q has more or less than a line to say: %q", test.args, got.err)
		}
	}
	if got := cli(t, host, "-h"); got.status != 0 || !strings.Contains(got.out, "usage:") || !strings.Contains(got.out, "-rate-up") || got.err != "" {
		t.Errorf("run -h ended with %+v", got)
	}
	empty(t, host)
}

func TestABoxHasItsOwnNetwork(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	for network, want := range map[string]string{"none": "lo\n", "bridge": "eth0\nlo\n"} {
		got := cli(t, host, "--network", network, "--", "sh", "-c", "sed 1,2d /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort")
		if got.out != want || got.status != 0 {
			t.Errorf("a box on %s ended with %+v, want the links %q", network, got, want)
		}
	}
	empty(t, host)
}

func TestBoxesPublishShareAndReachEachOther(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	host := netnstest.New(t)
	start(t, host, "pub1", "-p", "8080:80", "--mtu", "1400")
	start(t, host, "pub2", "-p", "127.0.0.1::80")
	for _, at := range []string{"127.0.0.1:8080", "10.88.0.1:8080", "[fd88::1]:8080"} {
		boxtest.Within(t, func() string { return boxtest.Answers(host, at, "pub1") })
	}
	boxes := listed(t, host)
	if len(boxes) != 2 || len(boxes[0].Ports) != 2 || len(boxes[1].Ports) != 1 || boxes[0].Bridge != "boxwire0" || boxes[0].Pid == 0 {
		t.Errorf("ls shows %+v", boxes)
	}
	var port string
	fmt.Sscanf(boxes[1].Ports[0], "tcp %s ->", &port)
	if says := boxtest.Answers(host, port, "pub2"); says != "" {
		t.Error(says)
	}
	// A sibling, the box's own port through the host, and a process that shares.
	pub1, err := netns.Open(t.Context(), "pub1")
	if err != nil {
		t.Fatal(err)
	}
	defer pub1.Close()
	for at, want := range map[string]string{
		address(t, host, "pub2"): "pub2",
		"10.88.0.1:8080":         "pub1",
		"127.0.0.1:80":           "pub1",
	} {
		if says := boxtest.Answers(pub1, at, want); says != "" {
			t.Error(says)
		}
	}
	got := cli(t, host, "--network", "box:pub1", "--", "readlink", "/proc/self/ns/net")
	if want := fmt.Sprintf("net:[%d]\n", pub1.ID().Ino); got != (result{out: want}) {
		t.Errorf("a process that shares the box ended with %+v, want %q", got, want)
	}
	for _, name := range []string{"pub1", "pub2"} { // the second has it from the bridge
		if got := cli(t, host, "exec", name, "ip", "link", "show", "eth0"); got.status != 127 && !strings.Contains(got.out, "mtu 1400") {
			t.Errorf("the link of %s is %+v, want an MTU of 1400", name, got)
		}
	}
	got = cli(t, host, "-p", "8080:80", "true")
	if got.status != 125 || !strings.Contains(got.err, "pub1") {
		t.Errorf("taking a port that is taken ended with %+v, want the holder's name", got)
	}
	got = cli(t, host, "--ip", "10.88.0.2", "true")
	if got.status != 125 || !strings.Contains(got.err, "box pub") {
		t.Errorf("taking an address that is taken ended with %+v, want the holder's name", got)
	}
	got = cli(t, host, "--name", "pub1", "true")
	if got.status != 125 || !strings.Contains(got.err, "is taken") {
		t.Errorf("taking a name that is taken ended with %+v", got)
	}
	if got = cli(t, host, "rm", "pub1", "pub2"); got.status != 0 {
		t.Errorf("rm ended with %+v", got)
	}
	empty(t, host)
}

func TestASubnetThatOverlapsNamesTheLink(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	lo, err := link.Get(t.Context(), host, "lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := lo.AddAddrs(t.Context(), link.StaticAddr(defaultSubnets[0])); err != nil {
		t.Fatal(err)
	}
	got := cli(t, host, "true")
	if got.status != 125 || !strings.Contains(got.err, "overlaps") || !strings.Contains(got.err, "link lo") {
		t.Errorf("an overlapping subnet ended with %+v, want the link's name", got)
	}
	empty(t, host)
}

func TestStartsAtTheSameMomentGetDifferentAddresses(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	shell(t)
	host := netnstest.New(t)
	const n = 8
	ends, release, err := os.Pipe() // the commands run until it is closed
	if err != nil {
		t.Fatal(err)
	}
	defer ends.Close()
	defer release.Close()
	runs := make([]*netns.Cmd, n)
	for i := range runs {
		runs[i] = command(context.Background(), host, "--", "cat")
		runs[i].Stdin, runs[i].Stderr = ends, os.Stderr
		if err := runs[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	boxtest.Within(t, func() string {
		for _, b := range listed(t, host) {
			for _, a := range b.Addrs {
				seen[b.Name+" "+a.String()] = true
			}
		}
		if len(seen) < 2*n {
			return fmt.Sprintf("%d addresses of %d boxes", len(seen), n)
		}
		return ""
	})
	release.Close()
	for i, run := range runs {
		if err := run.Wait(); err != nil {
			t.Errorf("run %d ended with %v", i, err)
		}
	}
	addrs := map[string]bool{}
	for s := range seen {
		_, a, _ := strings.Cut(s, " ")
		addrs[a] = true
	}
	if len(addrs) != 2*n {
		t.Errorf("%d boxes had %d different addresses: %v", n, len(addrs), seen)
	}
	empty(t, host)
}

func TestSignalsReachTheCommand(t *testing.T) {
	t.Parallel()
	shell(t)
	host := netnstest.New(t)
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT} {
		cmd := command(t.Context(), host, "--", "sh", "-c", "trap 'echo got; exit 9' TERM INT; echo ready; while :; do sleep 0.01; done")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ready := make([]byte, 6)
		if _, err := io.ReadFull(out, ready); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Signal(sig)
		rest, _ := io.ReadAll(out)
		cmd.Wait()
		if string(rest) != "got\n" || cmd.ProcessState.ExitCode() != 9 {
			t.Errorf("after %v the command said %q and the run ended with %d", sig, rest, cmd.ProcessState.ExitCode())
		}
	}
	empty(t, host)
}

func TestKilledRunsAreClearedUp(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	kill := func(cmd *netns.Cmd) {
		cmd.Process.Kill()
		boxtest.Within(t, func() string {
			for _, b := range listed(t, host) {
				if b.Pid == cmd.Process.Pid {
					return "the killed run is listed as alive"
				}
			}
			return ""
		})
	}
	kill(start(t, host, "killed1", "-p", "8081:80"))
	// The next use of the name clears up, and so does gc.
	if got := cli(t, host, "--name", "killed1", "-p", "8081:80", "true"); got.status != 0 {
		t.Errorf("the next run of the name ended with %+v", got)
	}
	empty(t, host)
	kill(start(t, host, "killed2", "-p", "8081:80"))
	if got := cli(t, host, "gc"); got.status != 0 || got.out != "killed2\n" {
		t.Errorf("gc ended with %+v", got)
	}
	empty(t, host)
}

func TestRootless(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	got := cli(t, host, "--rootless", "--", "sh", "-c", "id -u; sed 1,2d /proc/net/dev | grep -c eth0")
	if got.status != 0 || got.out != "0\n1\n" {
		t.Errorf("a rootless run ended with %+v", got)
	}
	empty(t, host)
}

func TestRatesAreTheBridgePortsAndGoWithTheBox(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	start(t, host, "slow", "--rate-up", "2M", "--rate-down", "8M")
	out, err := host.Command(t.Context(), "tc", "qdisc", "show").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no tc to look with")
	}
	if err != nil || !strings.Contains(string(out), "rate 8Mbit") || !strings.Contains(string(out), "ingress") {
		t.Errorf("tc shows %s (%v)", out, err)
	}
	if got := cli(t, host, "rm", "slow"); got.status != 0 {
		t.Errorf("rm ended with %+v", got)
	}
	empty(t, host)
}

func TestParseRate(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]link.Rate{"8k": 8e3, "10M": 10e6, "1.5G": 1.5e9, "64000": 64e3} {
		if got, err := parseRate(s); got != want || err != nil {
			t.Errorf("parseRate(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "-1M", "fast", "7k", "2000G", "NaN", "1 M"} {
		if got, err := parseRate(s); err == nil {
			t.Errorf("parseRate(%q) = %d, want an error", s, got)
		}
	}
}
