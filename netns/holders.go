package netns

import (
	"fmt"

	"github.com/boxwire/boxwire/internal/enum"
	"github.com/boxwire/boxwire/internal/plain"
)

// A Holder is something that keeps a network namespace alive.
type Holder struct {
	Kind HolderKind
	Pid  int    // the process; for a mount, one that is in the mount namespace
	Comm string // the process's name (proc(5), comm)

	Tid  int    // of a thread
	Fd   int    // of a descriptor or socket
	Path string // of a mount
}

// HolderKind is the kind of a [Holder].
type HolderKind uint8

// The kinds of holders.
const (
	HolderProcess    HolderKind = iota + 1 // a process that is in it
	HolderThread                           // a thread that is in it while its process is elsewhere
	HolderDescriptor                       // a descriptor that is open on it
	HolderSocket                           // a socket that was opened in it by a process that is elsewhere
	HolderMount                            // a bind mount: a name
)

var holderNames = map[HolderKind]string{
	HolderProcess: "process", HolderThread: "thread", HolderDescriptor: "descriptor", HolderSocket: "socket", HolderMount: "mount",
}

// String returns the kind in lower case: "process".
func (k HolderKind) String() string { return enum.Name(holderNames, k) }

// MarshalText returns what String does.
func (k HolderKind) MarshalText() ([]byte, error) { return enum.Marshal(holderNames, k) }

// UnmarshalText reads what MarshalText writes. Other text is os.ErrInvalid.
func (k *HolderKind) UnmarshalText(text []byte) error { return enum.Unmarshal(holderNames, k, text) }

// String describes the holder: "process 812 (nginx)".
func (h Holder) String() string {
	process := fmt.Sprintf("process %d (%s)", h.Pid, plain.Text(h.Comm)) // which every user gives his own
	switch h.Kind {
	case HolderProcess:
		return process
	case HolderThread:
		return fmt.Sprintf("thread %d of %s", h.Tid, process)
	case HolderDescriptor:
		return fmt.Sprintf("descriptor %d of %s", h.Fd, process)
	case HolderSocket:
		return fmt.Sprintf("socket %d of %s", h.Fd, process)
	case HolderMount:
		return fmt.Sprintf("mount %s, as %s sees it", plain.Text(h.Path), process)
	}
	return fmt.Sprintf("holder of kind %s", h.Kind)
}

// Info describes one namespace that [ListAll] found.
type Info struct {
	ID      ID
	Names   []string // paths of its bind mounts, in any mount namespace, sorted
	Pids    []int    // processes that are in it, or have a thread in it, ascending
	Holders []Holder // all that hold it, by Kind, then Pid
}
