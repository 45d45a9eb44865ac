package netns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// sleeper starts a process in the namespace that does nothing.
func sleeper(t *testing.T, ns *netns.NS) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(tool.Path(t, "sleep"), "60")
	if _, err := netns.Do(t.Context(), ns, func(context.Context) (int, error) { return 0, cmd.Start() }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// same fails unless the handle is on the namespace; it closes the handle.
func same(t *testing.T, got *netns.NS, err error, want *netns.NS) {
	t.Helper()
	if err != nil {
		t.Error(err)
		return
	}
	defer got.Close()
	if !got.Equal(want) {
		t.Errorf("opened %v, want %v", got.ID(), want.ID())
	}
}

func TestOpenTid(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	netns.Do(t.Context(), ns, func(ctx context.Context) (int, error) {
		got, err := netns.OpenTid(ctx, unix.Gettid())
		same(t, got, err, ns)
		return 0, nil
	})
	if _, err := netns.OpenTid(t.Context(), 1<<30); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "thread") {
		t.Errorf("a thread that is gone: %v", err)
	}
}

func TestOpenPidfd(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	cmd := sleeper(t, ns)
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	got, err := netns.OpenPidfd(t.Context(), pidfd)
	same(t, got, err, ns)
	cmd.Process.Kill()
	cmd.Wait()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for fd, is := range map[int]error{pidfd: os.ErrNotExist, int(null.Fd()): os.ErrInvalid, 1 << 20: syscall.EBADF} {
		if ns, err := netns.OpenPidfd(t.Context(), fd); !errors.Is(err, is) {
			t.Errorf("descriptor %d: %v, %v, want %v", fd, ns, err, is)
		}
	}
}

func TestOpenFdAndAdopt(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	home := current(t)
	got, err := netns.OpenFd(fd)
	same(t, got, err, home)
	adopted, err := netns.Adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the flags of the adopted descriptor are %#x, %v", flags, err)
	}
	err = adopted.WithFd(func(got int) error {
		if got != fd {
			t.Errorf("the handle has descriptor %d, want %d", got, fd)
		}
		return nil
	})
	if err != nil || !adopted.Equal(home) {
		t.Errorf("adopted %v, %v", adopted.ID(), err)
	}
	adopted.Close()

	mnt, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer mnt.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for fd, is := range map[int]error{int(mnt.Fd()): netns.ErrOtherKind, int(null.Fd()): netns.ErrNotNamespace, -1: syscall.EBADF} {
		for _, open := range []func(int) (*netns.NS, error){netns.OpenFd, netns.Adopt} {
			if _, err := open(fd); !errors.Is(err, is) {
				t.Errorf("descriptor %d: %v, want %v", fd, err, is)
			}
		}
	}
	if _, err := mnt.Stat(); err != nil {
		t.Errorf("a failed Adopt has closed the descriptor: %v", err)
	}
	_ = ns
}

func TestOpenSocket(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	ln, err := ns.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got, err := netns.OpenSocket(ln.(*net.TCPListener))
	same(t, got, err, ns)
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := netns.OpenSocket(file); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := netns.OpenSocket(nil); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("nil: %v", err)
	}
	ln.Close()
	if _, err := netns.OpenSocket(ln.(*net.TCPListener)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// fakeProc is a /proc in which real processes are in other cgroups than they are.
type fakeProc string

func (proc fakeProc) add(t *testing.T, pid, parent, started int, cgroup, cmdline string) {
	t.Helper()
	dir := filepath.Join(string(proc), fmt.Sprint(pid))
	real := fmt.Sprintf("/proc/%d", pid)
	stat := fmt.Sprintf("%d (a (b) c) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0", pid, parent, started)
	if err := errors.Join(
		os.MkdirAll(dir+"/ns", 0o755),
		os.Symlink(real+"/ns/net", dir+"/ns/net"),
		os.Symlink(real+"/ns/pid", dir+"/ns/pid"),
		os.WriteFile(dir+"/cgroup", []byte(cgroup), 0o644),
		os.WriteFile(dir+"/cmdline", []byte(strings.ReplaceAll(cmdline, " ", "\x00")+"\x00"), 0o644),
		os.WriteFile(dir+"/stat", []byte(stat), 0o644),
		os.WriteFile(dir+"/status", fmt.Appendf(nil, "Name:\ta\nUid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", os.Geteuid()), 0o644),
	); err != nil {
		t.Fatal(err)
	}
}

func TestOpenContainer(t *testing.T) {
	t.Parallel()
	const (
		idA = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
		idB = "4f797c539e6c0000000000000000000000000000000000000000000000000000"
		idC = "00797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
	)
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	own := os.Getpid()
	first, second := sleeper(t, a).Process.Pid, sleeper(t, b).Process.Pid
	other, rootless := sleeper(t, b).Process.Pid, sleeper(t, c).Process.Pid
	proc := fakeProc(t.TempDir())
	scope := func(id string) string { return "0::/system.slice/docker-" + id + ".scope\n" }
	proc.add(t, own, 1, 10, "0::/machine.slice/libpod-conmon-"+idC+".scope\n", "/usr/bin/conmon -c "+idC)
	proc.add(t, first, 1, 20, scope(idA), "nginx")
	proc.add(t, second, first, 30, scope(idA), "made a namespace of its own")
	proc.add(t, rootless, own, 40, "0::/user.slice\n", "sh")
	if err := os.WriteFile(string(proc)+"/uptime", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{idA, idA[:12], "docker://" + idA} {
		got, err := netns.OpenContainerIn(t.Context(), string(proc), id)
		same(t, got, err, a)
	}
	got, err := netns.OpenContainerIn(t.Context(), string(proc), idC)
	same(t, got, err, c)

	// Another user's monitor does not count, nor a set-user-ID program that is called so.
	for uids, trusted := range map[string]bool{
		"1000\t1000\t1000\t1000": false, "1000\t0\t0\t0": false, "0\t1000\t0\t0": false, "": false, "0\t0\t0\t0": true,
	} {
		if err := os.WriteFile(fmt.Sprintf("%s/%d/status", proc, own), []byte("Uid:\t"+uids+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := netns.OpenContainerIn(t.Context(), string(proc), idC)
		if trusted {
			same(t, got, err, c)
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a monitor with the user ids %q: %v, %v", uids, got, err)
		}
	}

	// Older processes that only say so do not count.
	proc.add(t, sleeper(t, b).Process.Pid, 1, 1, "0::/user.slice/user-1000.slice/docker-"+idA+".scope\n", "sh")
	proc.add(t, sleeper(t, b).Process.Pid, 1, 2, "0::/system.slice/docker-"+idC+".scope/docker-"+idA+".scope\n", "sh")
	got, err = netns.OpenContainerIn(t.Context(), string(proc), idA)
	same(t, got, err, a)

	proc.add(t, other, 1, 50, scope(idB), "sh")
	got, err = netns.OpenContainerIn(t.Context(), string(proc), idA)
	same(t, got, err, a)
	if _, err := netns.OpenContainerIn(t.Context(), string(proc), idA[:12]); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), idB) {
		t.Errorf("an id that fits two: %v", err)
	}
	var e *netns.Error
	if _, err := netns.OpenContainer(t.Context(), strings.Repeat("0", 64)); !errors.Is(err, os.ErrNotExist) || !errors.As(err, &e) {
		t.Errorf("no such container: %v", err)
	}
	for id, word := range map[string]string{"web": "name", "4f7": "12", "docker://4f7": "12", idC[:11]: "12"} {
		if _, err := netns.OpenContainer(t.Context(), id); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want %q in it", id, err, word)
		}
	}
	if _, err := netns.OpenContainer(t.Context(), "ssh.service"); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("no id: %v", err)
	}
}
