package testutil

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// OnFirstThread calls fn on the process's first thread, and keeps that from other
// goroutines until the test is over.
func OnFirstThread(t *testing.T, fn func()) {
	t.Helper()
	held, is := make(chan struct{}), make(chan bool)
	t.Cleanup(func() { close(held) })
	for range 100 {
		go func() {
			runtime.LockOSThread()
			first := unix.Gettid() == os.Getpid()
			if first {
				fn()
			}
			is <- first
			<-held // keeps its thread from the next
		}()
		if <-is {
			return
		}
	}
	t.Fatal("no test gets the first thread")
}
