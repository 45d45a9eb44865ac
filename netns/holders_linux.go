package netns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// Holders lists what keeps the namespace alive, apart from this handle's own descriptor:
// processes and threads in it, mounts, open descriptors, and sockets that were opened in it
// and are used from elsewhere. The netlink sockets of handles are among them. After
// [Delete] it shows why a namespace does not end:
//
//	ns, err := netns.Open(ctx, "web")
//	...
//	err = netns.Delete(ctx, "web")
//	holders, err := ns.Holders(ctx)
//
// It reads all of /proc, and so lists what is in the program's own pid namespace. If it may
// not look into a process, it returns what it has found together with os.ErrPermission.
func (ns *NS) Holders(ctx context.Context) ([]Holder, error) {
	var s scan
	err := ns.WithFd(func(fd int) error {
		s = scan{only: &ns.id, own: fd, sockets: true}
		return s.run(ctx)
	})
	var holders []Holder
	if info := s.found[ns.ID()]; info != nil {
		holders = info.Holders
	}
	if err != nil {
		return holders, &Error{Op: "netns.Holders", NS: ns.String(), Err: err}
	}
	return holders, nil
}

// ListAll lists the network namespaces that a process, thread, mount or open descriptor of
// the machine holds, by ID. It does not find a namespace that only a socket holds.
//
// It reads all of /proc, and so lists what is in the program's own pid namespace. If it may
// not look into a process, it returns what it has found together with os.ErrPermission.
func ListAll(ctx context.Context) ([]Info, error) {
	s := scan{own: -1}
	err := s.run(ctx)
	all := make([]Info, 0, len(s.found))
	for _, info := range s.found {
		all = append(all, *info)
	}
	slices.SortFunc(all, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.ID.Dev, b.ID.Dev), cmp.Compare(a.ID.Ino, b.ID.Ino))
	})
	if err != nil {
		return all, &Error{Op: "netns.ListAll", Err: err}
	}
	return all, nil
}

// scan is one reading of /proc.
type scan struct {
	only    *ID // look for this one
	own     int // a descriptor of this process that does not count
	sockets bool

	dev    uint64 // of all namespace files
	found  map[ID]*Info
	mounts map[string]bool // mount namespaces that were read
	hidden int             // processes that could not be looked into
	why    error
}

func (s *scan) run(ctx context.Context) error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return &os.PathError{Op: "stat", Path: "/proc/self/ns/net", Err: err}
	}
	s.dev = uint64(st.Dev)
	s.found = make(map[ID]*Info)
	s.mounts = make(map[string]bool)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch err := s.process(pid); {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH): // it has ended
		case err != nil:
			s.hidden++
			s.why = err
		}
	}
	for _, info := range s.found {
		slices.Sort(info.Names)
		info.Names = slices.Compact(info.Names)
		slices.Sort(info.Pids)
		info.Pids = slices.Compact(info.Pids)
		slices.SortStableFunc(info.Holders, func(a, b Holder) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Pid, b.Pid))
		})
	}
	if s.hidden > 0 {
		return privilege.Explain(fmt.Errorf("%d processes could not be looked into: %w", s.hidden, s.why), hintLooking())
	}
	return nil
}

// add notes a holder of the namespace with the inode number.
func (s *scan) add(ino uint64, h Holder) {
	id := ID{Dev: s.dev, Ino: ino}
	if s.only != nil && id != *s.only {
		return
	}
	info := s.found[id]
	if info == nil {
		info = &Info{ID: id}
		s.found[id] = info
	}
	info.Holders = append(info.Holders, h)
	switch h.Kind {
	case HolderProcess, HolderThread:
		info.Pids = append(info.Pids, h.Pid)
	case HolderMount:
		info.Names = append(info.Names, h.Path)
	}
}

// process looks into one process. What it holds beside its own namespace is read
// even if the process itself has become a zombie, whose namespace is gone.
func (s *scan) process(pid int) error {
	dir, err := os.OpenRoot(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return err
	}
	defer dir.Close()
	comm, err := dir.ReadFile("comm")
	if err != nil {
		return err
	}
	h := Holder{Pid: pid, Comm: strings.TrimRight(string(comm), "\n")}
	ino, err := s.readNS(dir, "ns/net")
	if err != nil {
		return err
	}
	h.Kind = HolderProcess
	s.add(ino, h)
	return errors.Join(s.threads(dir, h, ino), s.descriptors(dir, h, ino), s.mountsOf(dir, h))
}

// readNS reads the inode number of a link of the form net:[4026531840].
func (s *scan) readNS(dir *os.Root, name string) (uint64, error) {
	to, err := dir.Readlink(name)
	if err != nil {
		return 0, err
	}
	ino, ok := parseNS(to)
	if !ok {
		return 0, fmt.Errorf("%s/%s is %q", dir.Name(), name, to)
	}
	return ino, nil
}

func parseNS(s string) (uint64, bool) {
	s, ok := strings.CutPrefix(s, "net:[")
	s, ok2 := strings.CutSuffix(s, "]")
	if !ok || !ok2 {
		return 0, false
	}
	ino, err := strconv.ParseUint(s, 10, 64)
	return ino, err == nil
}

// readDir lists a directory of the process.
func readDir(dir *os.Root, name string) ([]os.DirEntry, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// threads notes the threads that are elsewhere than their process.
func (s *scan) threads(dir *os.Root, h Holder, home uint64) error {
	tasks, err := readDir(dir, "task")
	if err != nil {
		return err
	}
	h.Kind = HolderThread
	for _, t := range tasks {
		ino, err := s.readNS(dir, "task/"+t.Name()+"/ns/net")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return err
		}
		if h.Tid, err = strconv.Atoi(t.Name()); err == nil && ino != home {
			s.add(ino, h)
		}
	}
	return nil
}

// descriptors notes the descriptors and sockets of the process.
func (s *scan) descriptors(dir *os.Root, h Holder, home uint64) error {
	fds, err := readDir(dir, "fd")
	if err != nil {
		return err
	}
	for _, e := range fds {
		to, err := dir.Readlink("fd/" + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		h.Fd, _ = strconv.Atoi(e.Name())
		if h.Pid == os.Getpid() && h.Fd == s.own {
			continue
		}
		ino, ok := parseNS(to)
		h.Kind = HolderDescriptor
		switch {
		case ok:
		case strings.HasPrefix(to, "socket:["):
			h.Kind = HolderSocket
			ino, ok = s.socket(h)
			ok = ok && ino != home // those of a process that is in it say nothing new
		case strings.HasPrefix(to, "/"): // opened through a bind mount, it shows the mount's path
			ino, ok = s.file(fmt.Sprintf("/proc/%d/fd/%d", h.Pid, h.Fd))
		}
		if ok {
			s.add(ino, h)
		}
	}
	return nil
}

// file returns the inode number if path is a network namespace.
func (s *scan) file(path string) (uint64, bool) {
	var st unix.Statx_t
	// No file system is asked: one on the network might not answer.
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st); err != nil {
		return 0, false
	}
	if unix.Mkdev(st.Dev_major, st.Dev_minor) != s.dev {
		return 0, false
	}
	ns, err := openFile(path)
	if err != nil {
		return 0, false
	}
	defer ns.Close()
	return ns.id.Ino, true
}

// socket finds out which namespace another process's socket is of, with a
// duplicate of it (pidfd_getfd(2), Linux 5.6).
func (s *scan) socket(h Holder) (uint64, bool) {
	if !s.sockets {
		return 0, false
	}
	pidfd, err := unix.PidfdOpen(h.Pid, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, h.Fd, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	ns, err := socketNS(fd)
	if err != nil {
		return 0, false
	}
	defer ns.Close()
	return ns.id.Ino, true
}

// mountsOf notes the bind mounts in the process's mount namespace.
func (s *scan) mountsOf(dir *os.Root, h Holder) error {
	at, err := dir.Readlink("ns/mnt")
	if err != nil || s.mounts[at] {
		return err
	}
	info, err := dir.ReadFile("mountinfo")
	if err != nil {
		return err
	}
	s.mounts[at] = true
	h.Kind = HolderMount
	for _, m := range parseMounts(info) {
		if ino, ok := m.inode(); ok {
			h.Path = m.path
			s.add(ino, h)
		}
	}
	return nil
}

// unescape undoes the octal escapes of /proc/PID/mountinfo: \040 is a blank.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
