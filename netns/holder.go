package netns

import "fmt"

// A Holder is something that keeps a network namespace alive.
type Holder struct {
	Kind HolderKind
	Pid  int    // the process; for a mount, one that is in the mount namespace
	Comm string // the process's name (proc(5), comm)

	Tid  int    // of a thread
	Fd   int    // of a descriptor or socket
	Path string // of a mount
}

// HolderKind says what a [Holder] is.
type HolderKind int

// The ways of holding a namespace.
const (
	Process    HolderKind = iota + 1 // a process that is in it
	Thread                           // a thread that is in it while its process is elsewhere
	Descriptor                       // a descriptor that is open on it
	Socket                           // a socket that was opened in it by a process that is elsewhere
	Mount                            // a bind mount: a name
)

// String describes the holder: "process 812 (nginx)".
func (h Holder) String() string {
	process := fmt.Sprintf("process %d (%s)", h.Pid, h.Comm)
	switch h.Kind {
	case Process:
		return process
	case Thread:
		return fmt.Sprintf("thread %d of %s", h.Tid, process)
	case Descriptor:
		return fmt.Sprintf("descriptor %d of %s", h.Fd, process)
	case Socket:
		return fmt.Sprintf("socket %d of %s", h.Fd, process)
	case Mount:
		return fmt.Sprintf("mount %s, as %s sees it", h.Path, process)
	}
	return fmt.Sprintf("holder of kind %d", h.Kind)
}

// Info is what [All] says about one namespace.
type Info struct {
	ID      ID
	Names   []string // paths of its bind mounts, in any mount namespace, sorted
	Pids    []int    // processes that are in it, or have a thread in it, ascending
	Holders []Holder // all that hold it, by Kind, then Pid
}
