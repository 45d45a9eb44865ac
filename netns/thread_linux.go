package netns

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A place is where a thread is, as far as code that Do runs could change it under
// the scheduler's feet and nothing else would tell. The network namespace is set
// back with a system call that says whether it worked, and the user namespace
// cannot change where there are threads (setns(2), unshare(2): EINVAL).
type place struct {
	// mount is the mount namespace as the kernel writes it, "mnt:[4026531841]".
	mount [32]byte

	// left says that the thread does not share root, working directory and umask
	// with the process's first one any more (CLONE_FS, kcmp(2)). That alone says
	// nothing about its mount namespace: a thread that joins one together with
	// others of a process (setns(2) with a pidfd, Linux 5.8) goes on sharing. It is
	// false where the kernel was built without kcmp, or a seccomp filter forbids it.
	left bool
}

// common is where the threads that visits get are: a thread that is found
// elsewhere after a visit ends. nil: not known.
var common atomic.Pointer[place]

// here returns where the calling thread is.
func here(tid int) (p place, err error) {
	const path, kcmpFS = "/proc/thread-self/ns/mnt", 3 // KCMP_FS, linux/kcmp.h
	if _, err := unix.Readlink(path, p.mount[:]); err != nil {
		return p, &os.PathError{Op: "readlink", Path: path, Err: err}
	}
	differ, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(pid), uintptr(tid), kcmpFS, 0, 0, 0)
	p.left = errno == 0 && differ != 0
	return p, nil
}

// leave makes sure that it is known where the calling thread is.
func leave(tid int) error {
	if common.Load() != nil {
		return nil
	}
	p, err := here(tid)
	if err == nil {
		common.Store(&p)
	}
	return err
}

// back reports whether the calling thread is where it was.
func back(tid int) bool {
	now, err := here(tid)
	was := common.Load()
	if err == nil && was != nil && now == *was {
		return true
	}
	// It may also be that this thread is like all others, and the one that was
	// looked at first was not.
	common.Store(nil)
	return false
}

// pid is the number of the process, and of its first thread.
var pid = unix.Getpid()

// selfNet is the calling thread's network namespace.
const selfNet = "/proc/thread-self/ns/net"

// visit is one function's stay on a thread of its own.
type visit struct {
	fn       func() error
	ours     bool  // fn is known to change nothing but the network namespace
	err      error // fn's, or why it never ran
	returned bool  // fn returned; else it panicked or called Goexit
	panicked *PanicError
	done     chan struct{}
	tid      int
}

// onThread runs fn on an operating system thread that runs nothing else
// meanwhile, so that fn may change the thread's namespaces. A thread that is not
// where it was afterwards, and cannot be put back, ends here. Panics and
// runtime.Goexit go on in the caller.
func onThread(fn func() error) error { return (&visit{fn: fn}).await() }

// onOurThread is onThread for code of this package, which is known to change the
// network namespace only.
func onOurThread(fn func() error) error { return (&visit{fn: fn, ours: true}).await() }

func (v *visit) await() error {
	v.done = make(chan struct{})
	go v.start()
	<-v.done
	switch {
	case v.panicked != nil:
		panic(v.panicked)
	case !v.returned && v.err == nil:
		runtime.Goexit()
	}
	return v.err
}

// start gives the visit a thread that can end. The process's first thread
// cannot: the runtime would park it for good wherever it is, and
// /proc/PID/ns/net would show that place. While it is held here, the scheduler
// has to take another.
func (v *visit) start() {
	lockThread()
	if v.tid = unix.Gettid(); v.tid != pid {
		v.run()
		return
	}
	go v.start()
	<-v.done
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
func (v *visit) run() {
	defer close(v.done)
	visiting.add(v.tid)
	defer visiting.remove(v.tid)
	var err error
	if !v.ours {
		err = leave(v.tid)
	}
	home := -1
	if err == nil {
		home, err = selfNetFd()
	}
	if err != nil {
		v.err = err
		unlockThread() // nothing has been changed
		return
	}
	defer unix.Close(home)
	defer func() {
		if !v.returned {
			if r := recover(); r != nil {
				v.panicked = &PanicError{Value: r, Stack: debug.Stack()}
			}
		}
		if unix.Setns(home, unix.CLONE_NEWNET) == nil && (v.ours || back(v.tid)) {
			unlockThread()
		}
	}()
	v.err = v.fn()
	v.returned = true
}

// enter puts the calling thread, which onThread provides, into the namespace.
func (ns *NS) enter() error {
	var errno error
	err := ns.WithFd(func(fd int) error {
		errno = unix.Setns(fd, unix.CLONE_NEWNET)
		return nil
	})
	if err == nil && errno != nil {
		err = fmt.Errorf("entering the namespace: %w", os.NewSyscallError("setns", errno))
	}
	return err
}
