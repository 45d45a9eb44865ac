package netns

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A mountID is a mount namespace as the kernel writes it, "mnt:[4026531841]".
type mountID [32]byte

// commonMount is the mount namespace that the last threads looked at were in. One
// that a function leaves in another ends, so that in the end it is that of the
// program's other threads; and so reading it before each visit would be for
// nothing. nil: not known.
var commonMount atomic.Pointer[mountID]

// hereMount returns the mount namespace of the calling thread.
func hereMount() (id mountID, err error) {
	const path = "/proc/thread-self/ns/mnt"
	if _, err := unix.Readlink(path, id[:]); err != nil {
		return id, &os.PathError{Op: "readlink", Path: path, Err: err}
	}
	return id, nil
}

// leftProcess reports whether the calling thread does not share root, working
// directory and umask with the process's first one any more (CLONE_FS, kcmp(2)).
// That alone says nothing about its mount namespace: a thread that joins one
// together with others of a process (setns(2) with a pidfd, Linux 5.8) goes on
// sharing. It is false where the kernel was built without kcmp, or a seccomp filter
// forbids it.
func leftProcess() bool {
	const kcmpFS = 3 // KCMP_FS, linux/kcmp.h
	differ, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(unix.Getpid()), uintptr(unix.Gettid()), kcmpFS, 0, 0, 0)
	return errno == 0 && differ != 0
}

// A place is where a thread is, as far as code that Do runs could change it under
// the scheduler's feet and nothing else would tell. The network namespace is set
// back with a system call that says whether it worked, and the user namespace
// cannot change where there are threads (setns(2), unshare(2): EINVAL).
type place struct {
	mount mountID
	left  bool
}

// leave notes where the calling thread is.
func leave() (p place, err error) {
	p.left = leftProcess()
	if m := commonMount.Load(); m != nil {
		p.mount = *m
		return p, nil
	}
	if p.mount, err = hereMount(); err == nil {
		commonMount.Store(&p.mount)
	}
	return p, err
}

// back reports whether the calling thread is in the place.
func (p *place) back() bool {
	m, err := hereMount()
	if err == nil && m == p.mount {
		return leftProcess() == p.left
	}
	commonMount.Store(nil) // perhaps it is this thread that is like all others
	return false
}

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
	if unix.Gettid() != unix.Getpid() {
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
	var from place
	var err error
	if !v.ours {
		from, err = leave()
	}
	home := -1
	if err == nil {
		if home, err = unix.Open(selfNet, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			err = &os.PathError{Op: "open", Path: selfNet, Err: err}
		}
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
		if unix.Setns(home, unix.CLONE_NEWNET) == nil && (v.ours || from.back()) {
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
