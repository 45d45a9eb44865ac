// Package origin remembers where in the program descriptors were opened, for the
// leak check of package netnstest. It does nothing until that asks for it.
package origin

import (
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
)

var (
	on atomic.Bool

	mu     sync.Mutex // guards the following variable
	opened = make(map[int]opening)
)

type opening struct{ what, stack string }

// Remember makes [Note] work.
func Remember() { on.Store(true) }

// Note remembers that the calling goroutine has opened the descriptor.
func Note(fd int) {
	if !on.Load() {
		return
	}
	o := opening{What(fd), string(debug.Stack())}
	mu.Lock()
	defer mu.Unlock()
	opened[fd] = o
}

// Of returns the stack of the last Note for the descriptor, or "". A number that
// is open on something else by now was not noted.
func Of(fd int) string {
	mu.Lock()
	defer mu.Unlock()
	if o := opened[fd]; o.what == What(fd) {
		return o.stack
	}
	return ""
}

// What says what a descriptor is open on: "socket:[4711]".
func What(fd int) string {
	to, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)) // "" for one that is closed
	return to
}
