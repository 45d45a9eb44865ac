package netns_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// TestCreateAndDeleteLeaveNothing goes through 1,000 cycles in a user namespace of
// its own, where the number of network namespaces can be limited.
func TestCreateAndDeleteLeaveNothing(t *testing.T) {
	attr := aUser()
	attr.Cloneflags |= unix.CLONE_NEWNS
	attr.UidMappings[0].ContainerID, attr.GidMappings[0].ContainerID = 0, 0
	if !inChild(t, attr) {
		return
	}
	netnstest.Need(t)
	cycles := 1000
	if testing.Short() {
		cycles = 100
	}
	ns := mustCreate(t, "first") // makes the directory a mount point
	if err := ns.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	fds, mounts, goroutines := descriptors(t), mountinfo(t), runtime.NumGoroutine()
	for range cycles {
		ns, err := netns.Create(t.Context(), "box")
		if err != nil {
			t.Fatal(err)
		}
		if err := ns.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if after := descriptors(t); after > fds {
		t.Errorf("%d descriptors before, %d after", fds, after)
	}
	for mount := range strings.Lines(mountinfo(t)) { // others may go meanwhile
		if !strings.Contains(mounts, mount) {
			t.Errorf("a mount is left: %s", mount)
		}
	}
	if files, err := os.ReadDir(netns.DefaultDir); err != nil || len(files) > 0 {
		t.Errorf("left in %s: %v, %v", netns.DefaultDir, files, err)
	}
	settle(t, func() string { // a goroutine whose work is done has yet to end
		if after := runtime.NumGoroutine(); after > goroutines {
			return fmt.Sprintf("%d goroutines before, %d after", goroutines, after)
		}
		return ""
	})
	// The kernel counts the namespaces that this user namespace has: with a limit
	// of one, one can be made once all others are gone.
	if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	settle(t, func() string { // the kernel takes them apart in its own time
		ns, err := netns.New(t.Context())
		if err != nil {
			return fmt.Sprintf("namespaces are left: %v", err)
		}
		if second, err := netns.New(t.Context()); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a second one, which the limit forbids: %v, %v", second, err)
		}
		ns.Close()
		return ""
	})
}

// settle waits until look has nothing to say, within a bound; then the test fails
// with what it says.
func settle(t *testing.T, look func() string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for says := look(); says != ""; says = look() {
		if time.Now().After(deadline) {
			t.Fatal(says)
		}
		time.Sleep(time.Millisecond)
	}
}

func mountinfo(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestKilledInTheMiddle kills a process that makes and deletes a name, again and
// again, wherever it happens to be. What it leaves is reported by the next Create
// and removed by Delete.
func TestKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	ctx := t.Context()
	mustCreate(t, "neighbour").Delete(ctx) // makes the directory
	left := 0
	for range rounds {
		killAtRandom(t, "TestChildCreatesForever")
		if _, err := os.Lstat(netns.DefaultDir + "/victim"); err == nil {
			left++
			if ns, err := netns.Create(ctx, "victim"); !errors.Is(err, os.ErrExist) {
				t.Fatalf("Create over what is left: %v, %v", ns, err)
			}
			if err := netns.Delete(ctx, "victim"); err != nil {
				t.Fatal(err)
			}
		}
		ns, err := netns.Create(ctx, "victim")
		if err != nil {
			t.Fatal(err)
		}
		if err := ns.Delete(ctx); err != nil {
			t.Fatal(err)
		}
		if mounted(t, netns.DefaultDir+"/victim") {
			t.Fatal("a mount is left")
		}
	}
	t.Logf("of %d processes, %d have left the name", rounds, left)
}

// killAtRandom starts a test in a process, which says when it begins to do something
// again and again, and kills it somewhere in there.
func killAtRandom(t *testing.T, test string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+test)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "begins") {
	}
	time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond) // anywhere in the cycle
	cmd.Process.Kill()
	cmd.Wait()
}

func TestChildCreatesForever(t *testing.T) {
	childOnly(t)
	os.Stdout.WriteString("begins\n")
	for {
		ns, err := netns.Create(t.Context(), "victim")
		if err != nil {
			t.Fatal(err)
		}
		if err := ns.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
