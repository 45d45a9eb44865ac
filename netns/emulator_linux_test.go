package netns_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// forbidKind makes the kernel answer the questions for a namespace's kind and for that of
// a socket as qemu-user does, for all threads of the process (seccomp(2)).
func forbidKind(t *testing.T) {
	t.Helper()
	const (
		setFilter, allThreads = 1, 1                // SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
		allow, answer         = 0x7fff0000, 0x50000 // SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
		number, second        = 0, 24               // in struct seccomp_data
	)
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	program := []unix.SockFilter{
		load(number), unless(unix.SYS_IOCTL, 4),
		load(second), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SIOCGSKNS, Jt: 1}, unless(unix.NS_GET_NSTYPE, 1),
		{Code: unix.BPF_RET, K: answer | uint32(unix.ENOTTY)},
		{Code: unix.BPF_RET, K: allow},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, setFilter, allThreads, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		t.Skip("seccomp(2): ", errno)
	}
}

// Where the kernel cannot be asked for a namespace's kind, its name says it; and where that
// does not, the error claims nothing that is not so.
func TestWhereTheKindCannotBeAsked(t *testing.T) {
	if !inChild(t, nil) {
		return
	}
	netnstest.Need(t)
	ctx, f := t.Context(), netns.Dir(t.TempDir())
	named, err := f.Create(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer named.Delete(ctx)
	forbidKind(t)
	ns, err := netns.OpenPid(ctx, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if ino, err := inode(); err != nil || ns.ID().Ino != ino {
		t.Errorf("opened %v, want %d (%v)", ns, ino, err)
	}
	if made, err := netns.New(ctx); err != nil {
		t.Errorf("a new namespace: %v", err)
	} else {
		made.Close()
	}
	if _, err := netns.OpenPath(ctx, "/proc/self/ns/mnt"); !errors.Is(err, netns.ErrOtherKind) || !strings.Contains(fmt.Sprint(err), "mnt") {
		t.Errorf("a mount namespace: %v", err)
	}
	if _, err := netns.OpenPath(ctx, "/proc/self/status"); !errors.Is(err, netns.ErrNotNamespace) {
		t.Errorf("a file of /proc: %v", err)
	}
	again, err := f.Open(ctx, "web")
	if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, netns.ErrNotNamespace) || strings.Contains(fmt.Sprint(err), "cut off") {
		t.Errorf("a bind mount: %v, %v", again, err)
	}
}
