package netns

import (
	"errors"
	"iter"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// onOurThread is onThread for code of this package that is known to be short and
// to change nothing but the network namespace.
//
// It runs fn as a coroutine on the caller's thread. With a goroutine, which
// onThread starts, the scheduler wakes a second thread twice, for nothing: to
// make a namespace takes an eighth longer then.
func onOurThread(fn func() error) error {
	err := errUnfinished
	stays := false
	var there sync.Mutex // held until the caller goes on
	next, _ := iter.Pull(func(leave func(struct{}) bool) {
		lockThread()
		defer unlockThread()
		// The process's first thread is not to be seen elsewhere; see visit.start.
		if stays = unix.Gettid() == pid; stays {
			return
		}
		home, oerr := unix.Open(selfNet, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if oerr != nil {
			err = &os.PathError{Op: "open", Path: selfNet, Err: oerr}
			return
		}
		defer unix.Close(home)
		// A user namespace may let its threads out and not in again: they end.
		if stays = unix.Setns(home, unix.CLONE_NEWNET) != nil; stays {
			return
		}
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
		return (&visit{fn: fn, ours: true}).await()
	}
	return err
}

// errUnfinished is what a caller gets whose coroutine has panicked and could not
// go home either.
var errUnfinished = errors.New("the thread has been lost")

// stray keeps the calling thread from everybody until it can go home. The caller
// goes on meanwhile, on the thread of another goroutine that leaves the coroutine in
// its stead.
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
