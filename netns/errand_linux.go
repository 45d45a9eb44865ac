package netns

import (
	"errors"
	"iter"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// errand runs fn, which makes or enters a network namespace, changes nothing else of
// its thread and ends in no other way than by returning, on a thread that may go
// there.
//
// It is onOurThread without the goroutine, where that is safe: fn runs as a coroutine
// on the caller's thread. For a goroutine the scheduler wakes a second thread, twice
// and for nothing, which makes a new namespace an eighth slower.
func errand(fn func() error) error {
	err := errUnfinished
	stays := false
	var there sync.Mutex // held until the caller is out of next
	next, _ := iter.Pull(func(leave func(struct{}) bool) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		home := wayHome()
		if stays = home < 0; stays {
			return
		}
		defer unix.Close(home)
		defer func() {
			if unix.Setns(home, unix.CLONE_NEWNET) != nil {
				stray(home, &there, func() { leave(struct{}{}) })
			}
		}()
		err = fn()
	})
	there.Lock()
	next()
	there.Unlock()
	if stays {
		return onOurThread(fn)
	}
	return err
}

// errUnfinished is what a caller gets whose fn has panicked on a thread that could
// not go home either; the panic's value is lost.
var errUnfinished = errors.New("the function panicked, and its thread could not go home")

// wayHome opens the calling thread's network namespace, or returns -1 where the
// thread has to stay:
//
//   - The process's first thread is not to be seen elsewhere; see visit.start.
//   - That of a visit may have been taken to other places by what runs there.
//   - The program began without /proc. To look for it by path is not safe, as the
//     caller may have locked a thread to itself that has a root of its own.
//   - The kernel may let a thread out and not in again, where the way back leads
//     into another user namespace.
func wayHome() int {
	tid := unix.Gettid()
	if visiting.has(tid) || tid == pid || procFolder < 0 {
		return -1
	}
	home, err := selfNetFd()
	if err != nil {
		return -1
	}
	if unix.Setns(home, unix.CLONE_NEWNET) != nil {
		unix.Close(home)
		return -1
	}
	return home
}

// visiting has the numbers of the threads that visits run on. A sync.Map would take
// a tenth of a visit.
var visiting = threads{tids: make(map[int]bool)}

type threads struct {
	sync.Mutex
	tids map[int]bool
}

func (t *threads) add(tid int) {
	t.Lock()
	defer t.Unlock()
	t.tids[tid] = true
}

func (t *threads) remove(tid int) {
	t.Lock()
	defer t.Unlock()
	delete(t.tids, tid)
}

func (t *threads) has(tid int) bool {
	t.Lock()
	defer t.Unlock()
	return t.tids[tid]
}

// procFolder is a descriptor of /proc that is kept from the start of the program on,
// -1 where there was none.
var procFolder = func() int {
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}()

// selfNetFd opens the calling thread's network namespace, wherever its root is.
func selfNetFd() (int, error) {
	at, path := procFolder, "thread-self/ns/net"
	if at < 0 {
		at, path = unix.AT_FDCWD, selfNet
	}
	fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: selfNet, Err: err}
	}
	return fd, nil
}

// stray keeps the calling thread, and with it the namespace that it is in, until it
// can go home; a coroutine that is locked to its thread cannot end. The caller goes
// on meanwhile, on the thread of another goroutine that leaves the coroutine in its
// stead: nothing promises that this works, but it does (runtime/coro.go of Go 1.26),
// and TestAnErrandThatCannotComeHome would tell.
//
// The way home was open when the thread left, so that it takes a lot to be here:
// memory is short, or somebody has just taken the privilege from the whole process.
// A caller that has locked itself to the thread (runtime.LockOSThread) cannot go on
// elsewhere: the runtime ends the program then.
func stray(home int, there *sync.Mutex, leave func()) {
	go leave()
	there.Lock()
	for unix.Setns(home, unix.CLONE_NEWNET) != nil {
		time.Sleep(time.Second)
	}
	there.Unlock()
}
