package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/boxtest"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// rootlessHost opens the namespace that a rootless sandbox has made for its host: that of its only
// child.
func rootlessHost(t *testing.T, s *session) *netns.NS {
	t.Helper()
	pid := s.cmd.Process.Pid
	var ns *netns.NS
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if child, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			if ns, err = netns.OpenPid(t.Context(), child); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ns == nil {
		t.Fatal("the sandbox has no child")
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func TestAKilledRunIsClearedAwayByTheNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	other := w.start(t, "-allow", "example.org:443")
	s := w.start(t, "-allow", "example.org:443")
	s.want("child", "ok")
	pids := pidsIn(t, w.host.NS, "sandbox1")
	if len(pids) != 2 {
		t.Fatalf("processes %v", pids)
	}
	s.cmd.Process.Signal(unix.SIGKILL)
	s.cmd.Process.Wait() // which leaves the command's input open
	// The command ends with its sandbox.
	boxtest.Within(t, func() string {
		if now := pidsIn(t, w.host.NS, "sandbox1"); len(now) != 1 {
			return fmt.Sprintf("processes %v", now)
		}
		return ""
	})
	if status, _, stderr := w.once(t, "true"); status != 0 || stderr != "" {
		t.Errorf("the next run: %d, %q", status, stderr)
	}
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	other.want("tcp example.org:443", "ok")
	other.end()
	w.empty(t)
}

// What a run leaves that is killed after its first step, its second, ... in making and in removing
// its box, the next run takes away.
func TestARunThatIsKilledAtAnyStepLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zone())
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{exe, "-allow", "example.org:443", "-dns", w.resolver, "true"}
	stride := 3
	if testing.Short() {
		stride = 11
	}
	for steps := 1; ; steps += stride {
		_, killed := testutil.KillAfter(t, w.host.NS, steps, testutil.Victim{
			Path: exe, Args: args, Env: programEnv(), Steps: testutil.Messages,
		})
		if status, _, stderr := w.once(t, args[1:]...); status != 0 || stderr != "" {
			t.Errorf("the next run: %d, %q", status, stderr)
		}
		w.empty(t)
		if t.Failed() {
			t.Fatalf("so it was after %d steps", steps)
		}
		if !killed {
			if steps < 10 { // two networks, links, addresses, routes, and all of it removed
				t.Errorf("a whole run has %d steps", steps)
			}
			return
		}
	}
}
