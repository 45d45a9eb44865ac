package netns

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// place is where a thread is: the network, mount and user namespaces that code
// run by Do could change under the scheduler's feet, as the kernel writes them:
// "net:[4026531840]".
type place [3][32]byte

// threadDir opens the folder of the calling thread's namespaces. What is looked
// up through it costs a third of the whole path each time.
func threadDir() (int, error) {
	const path = "/proc/thread-self/ns"
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// placeOf returns where the thread is whose namespaces dir holds. Reading the
// links costs a tenth of following them, which makes an inode each time.
func placeOf(dir int) (p place, err error) {
	for i, name := range [...]string{"net", "mnt", "user"} {
		if _, err := unix.Readlinkat(dir, name, p[i][:]); err != nil {
			return p, os.NewSyscallError("readlinkat", err)
		}
	}
	return p, nil
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
	dir, home := -1, -1
	dir, v.err = threadDir()
	var before place
	if v.err == nil {
		defer unix.Close(dir)
		before, v.err = placeOf(dir)
	}
	if v.err == nil {
		home, v.err = unix.Openat(dir, "net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if v.err != nil {
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
		if unix.Setns(home, unix.CLONE_NEWNET) != nil {
			return
		}
		if after, err := placeOf(dir); err != nil || after != before {
			return
		}
		unlockThread()
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
