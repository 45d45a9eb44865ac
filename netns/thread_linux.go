package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// threadState is the state of a thread that code which Do runs may change without an
// error from the kernel later. The network namespace is no part of it: the system call
// that sets it back reports a failure. Nor is the user namespace, which a process with
// threads cannot change (setns(2), unshare(2): EINVAL).
type threadState struct {
	// in are the thread's other namespaces as the kernel writes them,
	// "mnt:[4026531841]", and those that its children get; all zero for one that the
	// kernel has not got.
	in [len(kinds)][40]byte

	// left says that the thread does not share root, working directory and umask
	// with the process's first one any more (CLONE_FS, kcmp(2)), or the descriptors
	// (CLONE_FILES). That alone says nothing about its mount namespace: a thread that
	// joins one together with others of a process (setns(2) with a pidfd, Linux 5.8)
	// goes on sharing. It is false where the kernel was built without kcmp, or a
	// seccomp filter forbids it.
	left bool
}

// kinds are the names of namespaces in /proc/PID/ns that one thread alone can change
// (namespaces(7)).
var kinds = [...]string{"mnt\x00", "uts\x00", "ipc\x00", "cgroup\x00", "pid_for_children\x00", "time_for_children\x00"}

// baseline is the state of the threads that run calls. A thread whose state differs
// after a call ends. nil: not known.
var baseline atomic.Pointer[threadState]

// readThreadState returns the state of the calling thread.
func readThreadState(tid int) (s threadState, err error) {
	const path, kcmpFiles, kcmpFS = "/proc/thread-self/ns", 2, 3 // linux/kcmp.h
	dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return s, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(dir)
	for i, kind := range kinds {
		// A pid namespace without a process is ENOENT, too.
		_, _, errno := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(unsafe.StringData(kind))),
			uintptr(unsafe.Pointer(&s.in[i])), unsafe.Sizeof(s.in[i]), 0, 0)
		if errno != 0 && errno != unix.ENOENT {
			return s, &os.PathError{Op: "readlink", Path: path + "/" + kind[:len(kind)-1], Err: errno}
		}
	}
	for _, what := range [...]uintptr{kcmpFiles, kcmpFS} {
		differ, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(pid), uintptr(tid), what, 0, 0, 0)
		s.left = s.left || errno == 0 && differ != 0
	}
	return s, nil
}

// recordBaseline makes sure that there is a baseline before the calling thread leaves.
func recordBaseline(tid int) error {
	if baseline.Load() != nil {
		return nil
	}
	p, err := readThreadState(tid)
	if err == nil {
		baseline.Store(&p)
	}
	return err
}

// unchanged reports whether the calling thread has the state of the baseline.
func unchanged(tid int) bool {
	now, err := readThreadState(tid)
	was := baseline.Load()
	if err == nil && was != nil && now == *was {
		return true
	}
	// The thread that set the baseline may be the one that differed.
	baseline.Store(nil)
	return false
}

// pid is the number of the process, and of its first thread.
var pid = unix.Getpid()

// selfNet is the calling thread's network namespace.
const selfNet = "/proc/thread-self/ns/net"

// threadCall is the call of one function on a thread of its own.
type threadCall struct {
	ns       *NS // where fn runs; nil: where the thread is
	fn       func() error
	fresh    bool  // fn runs in a new network namespace
	ours     bool  // fn is known to change nothing of its thread
	err      error // fn's, or why it never ran
	returned bool  // fn returned; else it panicked or called Goexit
	panicked *PanicError
	done     chan struct{}
	tid      int
	home     int  // a descriptor of the network namespace that the thread came from
	away     bool // the thread was put into another network namespace
}

// onThread runs fn on an operating system thread that is in the namespace and runs
// nothing else meanwhile, so that fn may change the thread's namespaces. A thread that
// is not where it was afterwards, and cannot be put back, ends here. Panics and
// runtime.Goexit go on in the caller. Without a namespace fn begins where the
// thread is.
func onThread(ns *NS, fn func() error) error { return (&threadCall{ns: ns, fn: fn}).await() }

// onOurThread is onThread for code of this package, which is known to change nothing of
// its thread. The calling thread will do if it is in the namespace: a program that looks
// after its own one needs no other.
func onOurThread(ns *NS, fn func() error) error {
	if here, err := onThisThread(ns, fn); here {
		return err
	}
	return (&threadCall{ns: ns, fn: fn, ours: true}).await()
}

// onThisThread runs fn if the calling thread is in the namespace.
func onThisThread(ns *NS, fn func() error) (here bool, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if here = isHere(ns); here {
		err = fn()
	}
	return here, err
}

// isHere reports whether the calling thread is in the namespace of an open handle.
func isHere(ns *NS) (here bool) {
	err := ns.WithFd(func(int) error {
		var st unix.Stat_t
		at, path := procDir, selfNet[len("/proc/"):]
		if at < 0 {
			at, path = unix.AT_FDCWD, selfNet
		}
		err := unix.Fstatat(at, path, &st, 0)
		here = err == nil && ns.id == ID{Dev: uint64(st.Dev), Ino: st.Ino}
		return nil
	})
	return here && err == nil
}

// inNewNS is onOurThread in a new network namespace.
func inNewNS(fn func() error) error { return (&threadCall{fn: fn, fresh: true, ours: true}).await() }

func (c *threadCall) await() error {
	c.done = make(chan struct{})
	c.home = -1
	go c.start()
	<-c.done
	if c.home >= 0 { // not by its thread, which may have descriptors of its own by now
		unix.Close(c.home)
	}
	switch {
	case c.panicked != nil:
		panic(c.panicked)
	case !c.returned && c.err == nil:
		runtime.Goexit()
	}
	return c.err
}

// start gives the call a thread that can end. The process's first thread
// cannot: the runtime would park it for good wherever it is, and
// /proc/PID/ns/net would show that place. While it is held here, the scheduler
// has to take another.
func (c *threadCall) start() {
	lockThread()
	if c.tid = unix.Gettid(); c.tid != pid {
		c.run()
		return
	}
	go c.start()
	<-c.done
	unlockThread()
}

// locks is how often a thread is locked. Once would do, if the function that runs
// on it did not unlock it by mistake: with more calls of runtime.UnlockOSThread
// than of LockOSThread, others would run in its namespace.
const locks = 8

func lockThread() {
	for range locks {
		runtime.LockOSThread()
	}
}

func unlockThread() {
	for range locks {
		runtime.UnlockOSThread()
	}
}

// run is called with the thread locked, and unlocks it only when it is back
// where it was; a goroutine that ends locked takes its thread along.
func (c *threadCall) run() {
	defer close(c.done)
	var err error
	if !c.ours {
		err = recordBaseline(c.tid)
	}
	if err == nil {
		c.home, err = selfNetFd()
	}
	if err != nil {
		c.err = err
		unlockThread() // nothing has been changed
		return
	}
	defer func() {
		if !c.returned {
			if r := recover(); r != nil {
				c.panicked = &PanicError{Value: r, Stack: debug.Stack()}
			}
		}
		if c.goHome() && (c.ours || unchanged(c.tid)) {
			unlockThread()
		}
	}()
	if c.err = c.enter(); c.err == nil {
		c.err = c.fn()
	}
	c.returned = true
}

// enter puts the calling thread into the call's namespace. A thread that is there
// already stays: setns(2) takes CAP_SYS_ADMIN also then, and a program that may only
// configure its own namespace has CAP_NET_ADMIN alone.
func (c *threadCall) enter() error {
	if c.fresh {
		err := unshareNet()
		c.away = err == nil
		return err
	}
	if c.ns == nil {
		return nil
	}
	return c.ns.WithFd(func(fd int) error {
		if at, err := statID(c.home); err != nil || at == c.ns.id {
			return err
		}
		if errno := unix.Setns(fd, unix.CLONE_NEWNET); errno != nil {
			err := fmt.Errorf("entering the namespace: %w", os.NewSyscallError("setns", errno))
			return explainEntering(err, fd)
		}
		c.away = true
		return nil
	})
}

// explainEntering says what is missing to enter a namespace: CAP_SYS_ADMIN in the user
// namespace that owns it and in the thread's own (setns(2)).
func explainEntering(err error, fd int) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	hint := privilege.SysAdmin.MissingOver(fd)
	if hint == "" {
		hint = privilege.SysAdmin.Missing()
	}
	return privilege.Explain(err, hint)
}

// goHome reports whether the calling thread is back in the network namespace that it
// came from.
func (c *threadCall) goHome() bool {
	if c.away || !c.stayed() {
		return unix.Setns(c.home, unix.CLONE_NEWNET) == nil
	}
	return true
}

// stayed reports whether the calling thread, which enter has left where it was, is
// there still. Only foreign code, and code that makes a namespace, may have moved it.
func (c *threadCall) stayed() bool {
	if c.ours {
		return true
	}
	was, err := statID(c.home)
	if err != nil {
		return false
	}
	fd, err := selfNetFd()
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	now, err := statID(fd)
	return err == nil && now == was
}

// procDir is a descriptor of /proc that is kept from the start of the program on,
// -1 where there was none.
var procDir = func() int {
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}()

// selfNetFd opens the calling thread's network namespace, wherever its root is.
func selfNetFd() (int, error) {
	at, path := procDir, "thread-self/ns/net"
	if at < 0 {
		at, path = unix.AT_FDCWD, selfNet
	}
	fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: selfNet, Err: err}
	}
	return fd, nil
}
