package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// Sysctl reads a setting of the namespace, such as "net.ipv4.ip_forward" or
// "net.ipv4.conf.eth0.rp_filter", without the line end. Names are those of sysctl(8). If a
// link's name contains a dot, write a slash for that dot,
// "net.ipv4.conf.eth0/100.forwarding", or slashes for all separators,
// "net/ipv4/conf/eth0.100/forwarding".
//
// A missing setting is os.ErrNotExist: its link is gone, the kernel lacks the protocol, or
// the setting belongs to the whole machine, which the kernel shows in its first namespace
// only. A missing permission is os.ErrPermission. A name that does not begin with "net." is
// os.ErrInvalid.
//
// The handle keeps the files of at most 64 settings open until it is closed, so that
// reading or setting one again is cheap.
func (ns *NS) Sysctl(ctx context.Context, key string) (string, error) {
	var value string
	err := ns.sysctl(ctx, key, unix.O_RDONLY, func(f *os.File) (err error) {
		value, err = readSetting(f)
		return err
	})
	if err != nil {
		return "", &Error{Op: "netns.Sysctl", NS: ns.String(), Subject: key, Err: err}
	}
	return value, nil
}

// SetSysctl sets a setting of the namespace. Names and errors are those of [NS.Sysctl]. In
// addition, a /proc/sys that is mounted read-only, as in many containers, is syscall.EROFS,
// and a value that the kernel refuses is syscall.EINVAL. An empty value is os.ErrInvalid,
// and so is one with a line end.
func (ns *NS) SetSysctl(ctx context.Context, key, value string) error {
	err := checkValue(value)
	if err == nil {
		err = ns.sysctl(ctx, key, unix.O_WRONLY, func(f *os.File) error {
			_, err := f.WriteAt([]byte(value), 0)
			return err
		})
	}
	if errors.Is(err, unix.EROFS) {
		err = fmt.Errorf("%w: /proc/sys is mounted read-only here", err)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = privilege.Explain(err, privilege.NetAdmin.MissingIn(ns))
	}
	if err != nil {
		return &Error{Op: "netns.SetSysctl", NS: ns.String(), Subject: key, Err: err}
	}
	return nil
}

const sysctlRoot = "/proc/sys/net/"

// maxSettings bounds the files that one handle keeps open.
const maxSettings = 64

// bound are the directories below /proc/sys/net whose files act on the namespace
// they were opened in. In others (sctp, mptcp and rds before Linux 6.13) some
// files act on that of the thread that reads or writes them.
var bound = map[string]bool{"core": true, "ipv4": true, "ipv6": true, "netfilter": true, "unix": true}

// settings are the open files of a handle's settings. The files are opened by a
// thread in the namespace. Opening them from outside through a descriptor of
// their directory works, too, but the kernel then caches one more entry of the same
// name with every open, and searches all of them in the next (Linux 6.18).
type settings struct {
	mu     sync.Mutex // guards the following fields
	closed bool
	dirs   map[string]*os.File // "ipv4": its directory, O_PATH
	files  map[setting]*os.File
}

type setting struct {
	path string // below sysctlRoot
	flag int    // O_RDONLY or O_WRONLY: many a file allows only one of them
}

// sysctl calls use with the open file of a setting.
func (ns *NS) sysctl(ctx context.Context, key string, flag int, use func(*os.File) error) error {
	path, err := sysctlPath(key)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if ns == nil || ns.file == nil {
		return errNil
	}
	group, _, inside := strings.Cut(path, "/")
	if !inside || !bound[group] {
		return ns.sysctlInside(ctx, path, flag, use)
	}
	for {
		f, cached, err := ns.settings.open(ctx, ns, setting{path, flag})
		if err != nil {
			return err
		}
		err = use(f)
		switch {
		case errors.Is(err, os.ErrClosed): // it had to make room for another
		case cached && errors.Is(err, unix.ENOENT):
			// Its link is gone, perhaps for another of that name.
			ns.settings.forget(setting{path, flag}, f)
		default:
			return err
		}
	}
}

// sysctlInside opens, uses and closes the file on a thread in the namespace.
func (ns *NS) sysctlInside(ctx context.Context, path string, flag int, use func(*os.File) error) error {
	var err error
	ierr := ns.open(ctx, func() {
		fd, oerr := unix.Open(sysctlRoot+path, flag|unix.O_CLOEXEC, 0) // not for the runtime's poller
		if oerr != nil {
			err = &os.PathError{Op: "open", Path: sysctlRoot + path, Err: oerr}
			return
		}
		f := os.NewFile(uintptr(fd), sysctlRoot+path)
		err = errors.Join(use(f), f.Close())
	})
	return errors.Join(ierr, err)
}

// open returns the file of a setting, and whether it was open already.
func (s *settings) open(ctx context.Context, ns *NS, key setting) (f *os.File, cached bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, os.ErrClosed
	}
	if f := s.files[key]; f != nil {
		return f, true, nil
	}
	if ierr := ns.open(ctx, func() { f, err = s.openInside(key) }); ierr != nil || err != nil {
		return nil, false, errors.Join(ierr, err)
	}
	for old, file := range s.files {
		if len(s.files) < maxSettings {
			break
		}
		delete(s.files, old)
		file.Close()
	}
	if s.files == nil {
		s.files = make(map[setting]*os.File)
	}
	s.files[key] = f
	return f, false, nil
}

// openInside is called by a thread in the namespace. The directory's descriptor
// saves it the search below /proc/sys/net, where all namespaces have directories of
// the same names.
func (s *settings) openInside(key setting) (*os.File, error) {
	group, rest, _ := strings.Cut(key.path, "/")
	dir := s.dirs[group]
	if dir == nil {
		var err error
		dir, err = os.OpenFile(sysctlRoot+group, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		if s.dirs == nil {
			s.dirs = make(map[string]*os.File)
		}
		s.dirs[group] = dir
	}
	fd, err := unix.Openat(int(dir.Fd()), rest, key.flag|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: sysctlRoot + key.path, Err: err}
	}
	return os.NewFile(uintptr(fd), sysctlRoot+key.path), nil
}

// forget closes a file that is of no use any more.
func (s *settings) forget(key setting, f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[key] == f {
		delete(s.files, key)
		f.Close()
	}
}

// close closes all files, for good.
func (s *settings) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, f := range s.dirs {
		f.Close()
	}
	for _, f := range s.files {
		f.Close()
	}
	s.dirs, s.files = nil, nil
}

// readSetting reads a file from the start. The kernel hands out the whole value
// in one read when there is room for it.
func readSetting(f *os.File) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if err != nil && err != io.EOF {
			return "", err
		}
		if n < len(buf) {
			return strings.TrimRight(string(buf[:n]), "\n"), nil
		}
		buf = make([]byte, 4*len(buf))
	}
}
