package netns_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// dirEnv names the directory that a test's child works in.
const dirEnv = "BOXWIRE_TEST_DIR"

// A Delete that fails takes nothing away.
func TestADeleteThatFailsLeavesTheName(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ctx := t.Context()
	mountOn := func(t *testing.T, source, path, kind string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(source, path, kind, flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	fresh := func(t *testing.T) (netns.Dir, *netns.NS) {
		t.Helper()
		dir := t.TempDir()
		mountOn(t, "tmpfs", dir, "tmpfs", 0)
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		ns, err := netns.Dir(dir).Create(ctx, "web")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		return netns.Dir(dir), ns
	}
	still := func(t *testing.T, f netns.Dir, ns *netns.NS) {
		t.Helper()
		again, err := f.Open(ctx, "web")
		if err != nil || !again.Equal(ns) || !mounted(t, string(f)+"/web") {
			t.Errorf("the name leads to %v, want %v: %v", again, ns, err)
		}
		again.Close()
	}
	t.Run("a file system that is read-only", func(t *testing.T) {
		t.Parallel()
		f, ns := fresh(t)
		mountOn(t, "", string(f), "", unix.MS_REMOUNT|unix.MS_RDONLY)
		for _, err := range []error{f.Delete(ctx, "web"), ns.Delete(ctx), f.Rename(ctx, "web", "other")} {
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("error %v", err)
			}
		}
		still(t, f, ns)
	})
	t.Run("a mount that is read-only", func(t *testing.T) {
		t.Parallel()
		f, ns := fresh(t)
		mountOn(t, "", string(f), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY)
		if err := f.Delete(ctx, "web"); !errors.Is(err, unix.EROFS) {
			t.Errorf("error %v", err)
		}
		still(t, f, ns)
	})
	t.Run("a file with content below", func(t *testing.T) {
		t.Parallel()
		f, ns := fresh(t)
		path := string(f) + "/web"
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // one over the other
			err := ns.WithFd(func(fd int) error {
				return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), path, "", unix.MS_BIND, "")
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Delete(ctx, "web"); !errors.Is(err, netns.ErrNotNamespace) {
			t.Errorf("error %v", err)
		}
		still(t, f, ns)
		for range 2 {
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
			t.Errorf("the file has %q, %v", b, err)
		}
	})
}

// A name that another mount namespace has is an empty file here. It is not taken for
// what a Create that was cut off leaves, and nothing takes it away.
func TestANameOfAnotherMountNamespace(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ctx, dir := t.Context(), t.TempDir()
	f := netns.Dir(dir)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestChildKeepsANameForItself$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=TestChildKeepsANameForItself", dirEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "made") {
	}
	if fi, err := os.Stat(dir + "/web"); err != nil || fi.Size() != 0 || mounted(t, dir+"/web") {
		t.Errorf("here it is %v, %v", fi, err)
	}
	process := fmt.Sprintf("process %d", cmd.Process.Pid)
	_, oerr := f.Open(ctx, "web")
	_, cerr := f.Create(ctx, "web")
	for _, c := range []struct{ err, want error }{
		{oerr, netns.ErrNotNamespace}, {cerr, os.ErrExist}, {f.Delete(ctx, "web"), syscall.EBUSY},
	} {
		text := fmt.Sprint(c.err)
		if !errors.Is(c.err, c.want) || !strings.Contains(text, process) || strings.Contains(text, "cut off") {
			t.Errorf("%v, want %v and %s", c.err, c.want, process)
		}
	}
	in.Close()
	rest, _ := io.ReadAll(out)
	var text strings.Builder
	for lines.Scan() {
		text.WriteString(lines.Text() + "\n")
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s%s", err, text.String(), rest)
	}
	// Now no mount namespace has it.
	if _, err := f.Open(ctx, "web"); !errors.Is(err, netns.ErrNotNamespace) || !strings.Contains(fmt.Sprint(err), "cut off") {
		t.Errorf("what is left: %v", err)
	}
	if err := f.Delete(ctx, "web"); err != nil {
		t.Error(err)
	}
}

// TestChildKeepsANameForItself has the name until its input ends.
func TestChildKeepsANameForItself(t *testing.T) {
	childOnly(t)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	f := netns.Dir(os.Getenv(dirEnv))
	ns, err := f.Create(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	os.Stdout.WriteString("made\n")
	io.Copy(io.Discard, os.Stdin)
	again, err := f.Open(t.Context(), "web")
	if err != nil || !again.Equal(ns) {
		t.Errorf("the name leads to %v, want %v: %v", again, ns, err)
	}
	again.Close()
	if err := unix.Unmount(string(f)+"/web", unix.MNT_DETACH); err != nil { // and leaves the file
		t.Error(err)
	}
}

// What is no file is not said to be what a Create leaves.
func TestOpenOfOtherThings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(
		os.Mkdir(dir+"/directory", 0o755), unix.Mkfifo(dir+"/pipe", 0o644), os.WriteFile(dir+"/content", []byte("x"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"directory", "pipe", "content"} {
		_, err := netns.Dir(dir).Open(t.Context(), name)
		if !errors.Is(err, netns.ErrNotNamespace) || strings.Contains(fmt.Sprint(err), "cut off") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
