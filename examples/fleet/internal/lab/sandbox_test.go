//go:build linux

package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// programTestEnv makes the test binary the program below.
const programTestEnv = "BOXWIRE_LAB_TEST_PROGRAM"

// program is one as the quickstart is: it makes a lab in a sandbox, with a clock that runs and one that is paused, prints
// their ids and the lab's directory, and waits for the end of its input.
func program() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := lab.Sandbox(); err != nil {
		return fail(err)
	}
	l, err := lab.New(context.Background(), lab.Options{Segments: []int{2}, Named: true})
	if err != nil {
		return fail(err)
	}
	defer l.Close()
	var pids []any
	for _, h := range l.Hosts {
		p := h.Program("clock", l.Hosts[0].Addr4().Addr().String()+":9")
		if err := p.Start(); err != nil {
			return fail(err)
		}
		if err := p.WaitOutput(context.Background(), "clock in"); err != nil {
			return fail(err)
		}
		pids = append(pids, p.Pid())
		if h == l.Hosts[1] {
			if err := p.Pause(); err != nil {
				return fail(err)
			}
		}
	}
	names, err := os.ReadDir("/run/netns")
	if err != nil {
		return fail(err)
	}
	fmt.Println(append(pids, len(names), l.Dir)...)
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

// startProgram starts the program and returns its processes of the lab, as descriptors that tell when they have ended.
func startProgram(t *testing.T) (cmd *exec.Cmd, stop func(), pidfds []int) {
	t.Helper()
	netnstest.Need(t)
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), programTestEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	var a, b, names int
	var dir string
	if _, err := fmt.Sscan(line, &a, &b, &names, &dir); err != nil {
		t.Fatalf("it printed %q: %v", line, err)
	}
	if names != 4 || !strings.HasPrefix(dir, "/run/") { // two hosts, the switch, the router
		t.Errorf("%d names, files in %s", names, dir)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("its directory is seen outside: %v", err)
	}
	for _, pid := range []int{a, b} {
		fd, err := unix.PidfdOpen(pid, 0)
		must(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		pidfds = append(pidfds, fd)
	}
	return cmd, func() { in.Close() }, pidfds
}

// ended waits until processes have ended.
func ended(t *testing.T, pidfds []int) {
	t.Helper()
	for i, fd := range pidfds {
		deadline := time.Now().Add(20 * time.Second)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
			if n == 1 {
				break
			}
			if err != nil && err != unix.EINTR || time.Now().After(deadline) {
				t.Fatalf("process %d of the lab has not ended: %v", i, err)
			}
		}
	}
}

func TestProgramInASandbox(t *testing.T) {
	t.Parallel()
	cmd, stop, pidfds := startProgram(t)
	stop()
	must(t, cmd.Wait())
	ended(t, pidfds)
}

func TestProcessesEndWithAProgramThatIsKilled(t *testing.T) {
	t.Parallel()
	cmd, _, pidfds := startProgram(t)
	must(t, cmd.Process.Kill())
	ended(t, pidfds)
}
