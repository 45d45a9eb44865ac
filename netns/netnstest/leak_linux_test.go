package netnstest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// childEnv names the test that a process of its own is started for.
const childEnv = "BOXWIRE_TEST_CHILD"

func prepare() {
	if os.Getenv(childEnv) != "" {
		patience = 200 * time.Millisecond // what it leaves stays
	}
}

// child runs one test of this binary in a process and mount namespace of its own.
func child(test string, env ...string) (string, error) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$")
	cmd.Env = append(append(os.Environ(), childEnv+"="+test, insideEnv+"="+furnished), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestLeaksFailTheRun(t *testing.T) {
	t.Parallel()
	Need(t)
	tool.Path(t, "sleep")
	out, err := child("TestChildLeavesEverything")
	if err == nil {
		t.Error("the run has passed")
	}
	for _, what := range []string{
		"descriptor ", " of net:[", "opened by",
		"a namespace, /run/netns/left", "mount of net:[", "at /run/netns/left",
		"leaveGoroutine", "thread ", "away from net:[", "child process", "(sleep)",
	} {
		if !strings.Contains(out, what) {
			t.Errorf("the report lacks %q", what)
		}
	}
	if n := strings.Count(out, "TestChildLeavesEverything"); n < 2 {
		t.Errorf("the report names the test %d times", n)
	}
	if t.Failed() {
		t.Log(out)
	}
	if out, err := child("TestChildLeavesEverything", leaksEnv+"=allow"); err != nil || !strings.Contains(out, "have left") {
		t.Errorf("allowed: %v\n%s", err, out)
	}
	if out, err := child("TestChildLeavesNothing"); err != nil || strings.Contains(out, "have left") {
		t.Errorf("nothing left: %v\n%s", err, out)
	}
}

func TestChildLeavesNothing(t *testing.T) {
	if os.Getenv(childEnv) != t.Name() {
		t.Skip("runs only in a process that another test starts")
	}
	Bridge(t, 2)
}

func TestChildLeavesEverything(t *testing.T) {
	if os.Getenv(childEnv) != t.Name() {
		t.Skip("runs only in a process that another test starts")
	}
	var err error
	if kept, err = netns.Create(t.Context(), "left"); err != nil {
		t.Fatal(err)
	}
	started := make(chan error)
	go leaveGoroutine(started)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
}

// A first thread that has gone elsewhere is what is named, not all of the others.
func TestAFirstThreadAstrayIsNamed(t *testing.T) {
	t.Parallel()
	Need(t)
	out, err := "nobody", error(nil)
	for range 20 { // the scheduler need not give anybody the first thread
		if out, err = child("TestChildLeavesItsFirstThread"); !strings.Contains(out, "no test gets the first thread") {
			break
		}
	}
	if err == nil || strings.Count(out, "away from") != 1 || !strings.Contains(out, "the process's first") {
		t.Errorf("error %v\n%s", err, out)
	}
}

func TestChildLeavesItsFirstThread(t *testing.T) {
	if os.Getenv(childEnv) != t.Name() {
		t.Skip("runs only in a process that another test starts")
	}
	testutil.OnFirstThread(t, func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
	})
}

// kept is a handle that the garbage collector does not close.
var kept *netns.NS

// leaveGoroutine never ends, and neither does its thread nor the process that it
// has started.
func leaveGoroutine(started chan<- error) {
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		cmd := exec.Command("sleep", "60")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		err = cmd.Start()
	}
	started <- err
	select {}
}
