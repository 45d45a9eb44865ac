package netns

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"

	"github.com/boxwire/boxwire/internal/limit"
	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// Watch yields the named namespaces of [DefaultDir], EventSynced, and then the changes,
// until the loop or ctx ends. The last item has the error. The directory may be missing. A
// name is reported when its namespace is mounted, not when its file is made.
//
// The kernel notifies the watch of changes in the directory (inotify(7)) and of mounts
// (proc_pid_mountinfo(5)); the watch then lists the directory. A slow loop loses no state.
// A name that comes and goes between two lists is not reported. A watch occupies one
// thread.
func Watch(ctx context.Context) iter.Seq2[Event, error] { return Dir("").Watch(ctx) }

// Watch is the function [Watch] for this directory.
func (d Dir) Watch(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		err := d.watch(ctx, func(e Event) error {
			if !yield(e, nil) {
				return errStop
			}
			return nil
		})
		if err != errStop {
			yield(Event{}, &Error{Op: "netns.Watch", Subject: d.root(), Err: err})
		}
	}
}

// errStop says that the loop over a sequence has ended.
var errStop = errors.New("the loop has ended")

// watch returns only with an error.
func (d Dir) watch(ctx context.Context, emit func(Event) error) error {
	if err := errors.Join(d.check(), ctx.Err()); err != nil {
		return err
	}
	a, err := newAlarm(d.root())
	if err != nil {
		return err
	}
	defer a.close()
	known, err := d.look(a)
	if err != nil {
		return err
	}
	for _, n := range known {
		if err := emit(Event{EventPresent, n}); err != nil {
			return err
		}
	}
	if err := emit(Event{Kind: EventSynced}); err != nil {
		return err
	}
	for {
		if err := a.wait(ctx); err != nil {
			return err
		}
		now, err := d.look(a)
		if err != nil {
			return err
		}
		for _, e := range changes(known, now) {
			if err := emit(e); err != nil {
				return err
			}
		}
		known = now
	}
}

// look lists the directory, after making sure that the kernel reports the next change.
func (d Dir) look(a *alarm) ([]Entry, error) {
	if err := a.arm(); err != nil {
		return nil, err
	}
	return d.list()
}

// An alarm goes off when something changes in a directory, or is mounted or
// unmounted anywhere.
//
// It waits in poll(2), which takes a thread. The runtime's poller is of no use for
// the table of mounts: that says that it has changed to the first who asks.
type alarm struct {
	dir    string
	notify int // inotify
	mounts int // /proc/self/mountinfo
	cancel int // an eventfd
}

func newAlarm(dir string) (*alarm, error) {
	a := &alarm{dir: dir, notify: -1, mounts: -1, cancel: -1}
	err := a.open()
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *alarm) open() (err error) {
	if a.notify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		cause := os.NewSyscallError("inotify_init1", err)
		if err == unix.EMFILE {
			return privilege.Explain(cause, limit.Setting("fs.inotify.max_user_instances")+", or that of descriptors")
		}
		return cause
	}
	if a.cancel, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	const path = "/proc/self/mountinfo"
	if a.mounts, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	return nil
}

func (a *alarm) close() {
	for _, fd := range []int{a.notify, a.mounts, a.cancel} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// arm watches the directory, or what is there of the way to it. Doing so again
// changes nothing, and follows a directory that was replaced.
func (a *alarm) arm() error {
	watched := ""
	for {
		at, err := a.watchNearest()
		if err != nil || at == a.dir || at == watched {
			return err
		}
		watched = at // and once more: it may have got a child before it was watched
	}
}

// watchNearest watches the directory, or the nearest one above it that is there.
func (a *alarm) watchNearest() (string, error) {
	const mask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	for at := a.dir; ; at = filepath.Dir(at) {
		_, err := unix.InotifyAddWatch(a.notify, at, mask)
		if err == nil {
			return at, nil
		}
		if err == unix.ENOSPC {
			err := &os.PathError{Op: "inotify_add_watch", Path: at, Err: err}
			return "", privilege.Explain(err, limit.Setting("fs.inotify.max_user_watches"))
		}
		if err != unix.ENOENT || at == "/" {
			return "", &os.PathError{Op: "inotify_add_watch", Path: at, Err: err}
		}
	}
}

// wait waits for the next change.
func (a *alarm) wait(ctx context.Context) error {
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		unix.Write(a.cancel, []byte{1, 0, 0, 0, 0, 0, 0, 1})
	})
	fds := []unix.PollFd{
		{Fd: int32(a.notify), Events: unix.POLLIN},
		{Fd: int32(a.mounts), Events: unix.POLLPRI},
		{Fd: int32(a.cancel), Events: unix.POLLIN},
	}
	_, err := unix.Poll(fds, -1)
	for err == unix.EINTR {
		_, err = unix.Poll(fds, -1)
	}
	if !stop() {
		<-over // before its descriptor is closed
		return ctx.Err()
	}
	if err != nil {
		return os.NewSyscallError("poll", err)
	}
	// What has changed is looked at, not read.
	buf := make([]byte, 4096)
	for {
		if _, err := unix.Read(a.notify, buf); err != unix.EINTR && err != nil {
			return nil // nothing more
		}
	}
}
