package runner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/boxtest"
	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// What has the name of a box and is none is not run's to remove, whatever fails.
func TestStrangersAreLeftAlone(t *testing.T) {
	t.Parallel()
	ctx, host, elsewhere := t.Context(), netnstest.New(t), netnstest.New(t)
	stranger, err := netns.Create(ctx, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Delete(ctx)
	resident := stranger.Command(ctx, tool.Path(t, "sleep"), "60")
	if err := resident.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { resident.Process.Kill(); resident.Wait() }()
	for _, name := range []string{portName("stranger"), portName("linked")} {
		if _, err := link.Create(ctx, host, link.Spec{Name: name, Kind: link.Bridge{}}); err != nil {
			t.Fatal(err)
		}
	}
	start(t, elsewhere, "other-host")

	for name, says := range map[string]string{"stranger": "no box of this host", "linked": portName("linked"), "other-host": "no box of this host"} {
		if got := cli(t, host, "--name", name, "true"); got.status != 125 || !strings.Contains(got.err, says) {
			t.Errorf("run --name %s ended with %+v, want %q", name, got, says)
		}
	}
	if got := cli(t, host, "rm", "stranger"); got.status != 125 {
		t.Errorf("rm ended with %+v", got)
	}
	if got := cli(t, host, "gc"); got != (result{}) {
		t.Errorf("gc ended with %+v", got)
	}
	for _, name := range []string{portName("stranger"), portName("linked")} {
		if _, err := link.Get(ctx, host, name); err != nil {
			t.Error(err)
		}
	}
	if again, err := netns.Open(ctx, "stranger"); err != nil || !again.Equal(stranger) {
		t.Errorf("the stranger's namespace is %v (%v)", again, err)
	} else {
		again.Close()
	}
	if err := resident.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the process in it: %v", err)
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", resident.Process.Pid)); err != nil || bytes.Contains(stat, []byte(") Z ")) {
		t.Errorf("the process in it has ended: %s (%v)", stat, err)
	}
	if says := boxtest.Answers(elsewhere, address(t, elsewhere, "other-host"), "other-host"); says != "" {
		t.Error(says)
	}
}

// A run that is killed between the file of a name and its mount leaves the file.
func TestAFileWithoutANamespaceIsNoObstacle(t *testing.T) {
	t.Parallel()
	shell(t)
	host := netnstest.New(t)
	if err := os.MkdirAll(netns.DefaultDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(netns.DefaultDir+"/cut-off", nil, 0); err != nil {
		t.Fatal(err)
	}
	if got := cli(t, host, "--name", "cut-off", "true"); got != (result{}) {
		t.Errorf("the run ended with %+v", got)
	}
	if _, err := os.Lstat(netns.DefaultDir + "/cut-off"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there (%v)", err)
	}
	empty(t, host)
}

// Signals find a run in the middle of making and of removing its box.
func TestSignalsLeaveNoHalfABox(t *testing.T) {
	t.Parallel()
	shell(t)
	host := netnstest.New(t)
	// waits holds the lock, calls begin, and sends the run a signal when it waits.
	waits := func(cmd *netns.Cmd, begin func() error) {
		t.Helper()
		unlock, err := lock()
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		if err := begin(); err != nil {
			t.Fatal(err)
		}
		boxtest.Within(t, func() string {
			fds := fmt.Sprintf("/proc/%d/fd/", cmd.Process.Pid)
			entries, err := os.ReadDir(fds)
			for _, e := range entries {
				if file, _ := os.Readlink(fds + e.Name()); file == lockFile {
					return ""
				}
			}
			return fmt.Sprintf("the run does not wait for the lock (%v)", err)
		})
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}

	making := command(t.Context(), host, "--", "sleep", "60")
	waits(making, making.Start)
	making.Wait()
	if status := making.ProcessState.ExitCode(); status != 128+15 {
		t.Errorf("a run that was asked to end before its command began ended with %d", status)
	}
	empty(t, host)

	removing := command(t.Context(), host, "--", "sh", "-c", "echo; read line; exit 5")
	in, err := removing.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := removing.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := removing.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	waits(removing, in.Close)
	removing.Wait()
	if status := removing.ProcessState.ExitCode(); status != 5 {
		t.Errorf("a run that was asked to end after its command had ended with %d", status)
	}
	empty(t, host)
}

// A box on several subnets of a family has one way out.
func TestSubnetsMayBeOfOneFamily(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	host := netnstest.New(t)
	got := cli(t, host, "--subnet", "10.1.0.0/24", "--subnet", "10.2.0.0/24", "--subnet", "fd01::/64", "--ip", "10.2.0.9",
		"--", "sh", "-c", "cat /proc/net/route; cat /proc/net/fib_trie")
	if got.status != 0 || strings.Count(got.out, "eth0\t00000000\t0100010A") != 1 || strings.Count(got.out, "eth0\t00000000\t") != 1 {
		t.Errorf("the run ended with %+v, want one default route", got)
	}
	for _, addr := range []string{"10.1.0.2", "10.2.0.9"} {
		if !strings.Contains(got.out, addr) {
			t.Errorf("the box has no address %s", addr)
		}
	}
	empty(t, host)
}

// `ip netns exec H run` has a mount namespace of its own, in which no other
// process sees the box's name.
func TestABoxIsFoundFromAnotherMountNamespace(t *testing.T) {
	t.Parallel()
	shell(t)
	host := netnstest.New(t)
	began := func(name, then string) *netns.Cmd {
		t.Helper()
		cmd := command(context.Background(), host, "--name", name, "--", "sh", "-c", "readlink /proc/self/ns/net; "+then)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		if _, err := cmd.StdinPipe(); err != nil { // until Wait
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if ns, err := netns.Open(t.Context(), name); !errors.Is(err, netns.ErrNotNamespace) {
			t.Errorf("the name is to be seen here: %v, %v", ns, err)
		}
		if got := cli(t, host, "exec", name, "readlink", "/proc/self/ns/net"); got != (result{out: line}) {
			t.Errorf("exec ended with %+v, want %q", got, line)
		}
		if got := cli(t, host, "exec", name, "--", "readlink", "/proc/self/ns/net"); got != (result{out: line}) {
			t.Errorf("exec with -- ended with %+v, want %q", got, line)
		}
		if got := cli(t, host, "gc"); got != (result{}) {
			t.Errorf("gc ended with %+v, and the box is alive", got)
		}
		if got := cli(t, host, "--name", name, "true"); got.status != 125 || !strings.Contains(got.err, "taken") {
			t.Errorf("taking the name ended with %+v", got)
		}
		return cmd
	}
	cmd := began("unseen1", "exec sleep 60")
	if got := cli(t, host, "rm", "unseen1"); got != (result{}) {
		t.Errorf("rm ended with %+v", got)
	}
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 128+15 {
		t.Errorf("the removed run ended with %v", cmd.ProcessState)
	}
	empty(t, host)
	cmd = began("unseen2", "exec sleep 60")
	cmd.Process.Kill()
	cmd.Wait()
	if got := cli(t, host, "gc"); got != (result{out: "unseen2\n"}) {
		t.Errorf("gc ended with %+v", got)
	}
	// With the last process of that mount namespace the mount ends, the network
	// namespace with it, and a file is left for the next use of the name.
	cmd = began("unseen3", "exec cat")
	cmd.Process.Kill()
	cmd.Wait()
	boxtest.Within(t, func() string {
		if !leftFile(t.Context(), "unseen3") {
			return "the mount has not ended"
		}
		return ""
	})
	if got := cli(t, host, "gc"); got.status != 0 {
		t.Errorf("gc ended with %+v", got)
	}
	if got := cli(t, host, "--name", "unseen3", "true"); got != (result{}) {
		t.Errorf("the next run of the name ended with %+v", got)
	}
	for _, name := range []string{"unseen1", "unseen2", "unseen3"} {
		if _, err := os.Lstat(netns.DefaultDir + "/" + name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file %s is left (%v)", name, err)
		}
	}
	empty(t, host)
}
