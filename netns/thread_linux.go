package netns

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// place is where a thread is: the namespaces that code run by Do could change
// under the scheduler's feet.
type place struct{ net, mnt, user ID }

// here returns the calling thread's place.
func here() (p place, err error) {
	if p.net, err = threadNS("/proc/thread-self/ns/net"); err == nil {
		if p.mnt, err = threadNS("/proc/thread-self/ns/mnt"); err == nil {
			p.user, err = threadNS("/proc/thread-self/ns/user")
		}
	}
	return p, err
}

func threadNS(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return ID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// visit is one function's stay on a thread of its own.
type visit struct {
	fn       func() error
	err      error // fn's, or why it never ran
	returned bool  // fn returned; else it panicked or called Goexit
	panicked *PanicError
	done     chan struct{}
}

// onThread runs fn on an operating system thread that runs nothing else
// meanwhile, so that fn may change the thread's namespaces. A thread that is not
// where it was afterwards, and cannot be put back, ends here. Panics and
// runtime.Goexit go on in the caller.
func onThread(fn func() error) error {
	v := &visit{fn: fn, done: make(chan struct{})}
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
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		v.run()
		return
	}
	go v.start()
	<-v.done
	runtime.UnlockOSThread()
}

// run is called with the thread locked, and unlocks it only when it is back
// where it was; a goroutine that ends locked takes its thread along.
func (v *visit) run() {
	defer close(v.done)
	before, err := here()
	if err != nil {
		runtime.UnlockOSThread() // nothing has been changed
		v.err = err
		return
	}
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		v.err = err
		return
	}
	defer home.Close()
	defer func() {
		if !v.returned {
			if r := recover(); r != nil {
				v.panicked = &PanicError{Value: r, Stack: debug.Stack()}
			}
		}
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) != nil {
			return
		}
		if after, err := here(); err != nil || after != before {
			return
		}
		runtime.UnlockOSThread()
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
