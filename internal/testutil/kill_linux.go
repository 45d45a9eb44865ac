package testutil

import (
	"context"
	"encoding/binary"
	"os"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// A Victim is a program that is killed at a given step.
type Victim struct {
	Path      string
	Args, Env []string // Args[0] is the name it is started by
	Stdin     string
	Steps     []uintptr // system calls that count
}

// Messages are the system calls that send netlink messages and write files.
var Messages = []uintptr{unix.SYS_WRITE, unix.SYS_SENDTO, unix.SYS_SENDMSG}

// KillAfter runs the program in the namespace and kills it as soon as it has made
// the given number of steps, with whichever of its threads: what the last one has
// changed is there, and what would follow never happens. Netlink messages that
// only ask are no steps. It returns what the program has printed, and whether it
// was killed; it may have ended before that many steps. Processes that it has
// started live on, and are waited for.
func KillAfter(t testing.TB, ns *netns.NS, steps int, v Victim) (out string, killed bool) {
	t.Helper()
	file := func(content string) *os.File {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err == nil {
			_, err = f.WriteAt([]byte(content), 0) // to be read from its beginning
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	in, printed := file(v.Stdin), file("")
	defer in.Close()
	defer printed.Close()
	// The thread that starts the program traces it.
	killed, err := netns.Do(t.Context(), ns, func(context.Context) (bool, error) {
		p, err := os.StartProcess(v.Path, v.Args, &os.ProcAttr{
			Env: v.Env, Files: []*os.File{in, printed, printed},
			Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
		})
		if err != nil {
			return false, err
		}
		defer p.Release()
		tr := tracer{pid: p.Pid, steps: steps, calls: v.Steps, inside: map[int]bool{}}
		err = tr.run()
		return tr.killed, err
	})
	if err != nil {
		t.Fatalf("tracing %s: %v", v.Path, err)
	}
	b, err := os.ReadFile(printed.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b), killed
}

type tracer struct {
	pid    int // of the program, and its process group
	steps  int // until it is killed
	calls  []uintptr
	inside map[int]bool // threads that are in a system call that counts
	killed bool
}

// run lets the program go from system call to system call until no process of
// its group is left.
func (tr *tracer) run() error {
	var status unix.WaitStatus
	if _, err := wait(tr.pid, &status); err != nil { // it stops when it has been executed
		return err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
		unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(tr.pid, options); err != nil {
		return err
	}
	known := map[int]bool{tr.pid: true}
	for id, signal := tr.pid, 0; ; {
		// A thread that is gone meanwhile shows up in what follows.
		if err := unix.PtraceSyscall(id, signal); err != nil && err != unix.ESRCH {
			return err
		}
		for {
			var err error
			id, err = wait(-tr.pid, &status)
			if err == unix.ECHILD {
				return nil
			}
			if err != nil {
				return err
			}
			if status.Stopped() {
				break
			}
		}
		fresh := !known[id]
		known[id], signal = true, 0
		switch s := status.StopSignal(); {
		case s == unix.SIGTRAP|0x80:
			if err := tr.call(id); err != nil && err != unix.ESRCH {
				return err
			}
		case s == unix.SIGTRAP && status.TrapCause() >= 0: // a new thread, for example
		case s == unix.SIGSTOP && fresh: // its beginning
		default:
			signal = int(s)
		}
	}
}

// wait waits for any of the group, threads included.
func wait(id int, status *unix.WaitStatus) (int, error) {
	for {
		got, err := unix.Wait4(id, status, unix.WALL, nil)
		if err != unix.EINTR {
			return got, err
		}
	}
}

// call looks at a thread that enters or leaves a system call, and kills the
// program after the last step. ptrace(2): struct ptrace_syscall_info.
func (tr *tracer) call(id int) error {
	var info struct {
		op       uint8 // PTRACE_SYSCALL_INFO_ENTRY or _EXIT
		_        [23]uint8
		nr, _    uint64 // of an entry: the number, the first argument
		buf, len uint64 // the next two
		_        [8]uint64
	}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(id), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return errno
	}
	if info.op == unix.PTRACE_SYSCALL_INFO_ENTRY {
		asks := false
		if info.nr == unix.SYS_WRITE || info.nr == unix.SYS_SENDTO {
			head := make([]byte, min(info.len, unix.SizeofNlMsghdr))
			if _, err := unix.PtracePeekData(id, uintptr(info.buf), head); err != nil {
				return err
			}
			asks = question(head)
		}
		tr.inside[id] = !asks && slices.Contains(tr.calls, uintptr(info.nr))
		return nil
	}
	if !tr.inside[id] || tr.killed {
		return nil
	}
	tr.inside[id] = false
	if tr.steps--; tr.steps > 0 {
		return nil
	}
	tr.killed = true
	return unix.Kill(tr.pid, unix.SIGKILL)
}

// question says whether what is written is a netlink message that changes nothing,
// or eight bytes by which the runtime wakes a thread.
func question(b []byte) bool {
	if len(b) < unix.SizeofNlMsghdr || binary.NativeEndian.Uint16(b[6:])&unix.NLM_F_REQUEST == 0 {
		return len(b) == 8
	}
	typ := binary.NativeEndian.Uint16(b[4:])
	switch typ >> 8 {
	case 0: // of rtnetlink every third is one (linux/rtnetlink.h); or an nftables batch
		return typ&3 == unix.RTM_GETLINK&3
	case unix.NFNL_SUBSYS_CTNETLINK:
		return typ&0xff == 1 // IPCTNL_MSG_CT_GET
	case unix.NFNL_SUBSYS_NFTABLES: // outside of a batch
		return true
	}
	return false
}
