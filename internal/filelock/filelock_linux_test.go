package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What another user puts in the lock's place blocks no one.
func TestLockSkipsWhatIsNotItsFile(t *testing.T) {
	t.Parallel()
	for what, put := range map[string]func(path string) error{
		"symlink":   func(path string) error { return os.Symlink("/etc/passwd", path) },
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o666) },
		"directory": func(path string) error { return os.Mkdir(path, 0o777) },
		"full":      func(path string) error { return os.MkdirAll(filepath.Join(path, "held"), 0o777) },
		"socket": func(path string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		},
	} {
		name := fmt.Sprintf("boxwire-test-%s-%d.lock", what, os.Getpid())
		path := filepath.Join(dirs()[0], name)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(path)
		unlock, err := Lock(t.Context(), name)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		unlock()
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestUnusable(t *testing.T) {
	t.Parallel()
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EACCES, unix.EPERM, unix.ENOENT} {
		if !unusable(&os.PathError{Op: "open", Path: "/run/x", Err: errno}) {
			t.Errorf("%v stops every call", errno)
		}
	}
	if unusable(unix.EMFILE) || unusable(context.Canceled) || unusable(nil) {
		t.Error("an error that would be the same anywhere, or none, is ignored")
	}
}

func TestLockHasOneHolderAndLeavesNoFile(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("boxwire-test-%d.lock", os.Getpid())
	unlock, err := Lock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Lock(ctx, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it is held: %v", err)
	}
	got := make(chan func())
	go func() {
		second, err := Lock(context.WithoutCancel(t.Context()), name)
		if err != nil {
			t.Error(err)
		}
		got <- second
	}()
	select {
	case <-got:
		t.Error("two have it")
	case <-time.After(50 * time.Millisecond):
	}
	unlock()
	(<-got)()
	for _, dir := range dirs() {
		if left, _ := filepath.Glob(filepath.Join(dir, name)); left != nil {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestDirectoryHasOneHolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := Directory(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Directory(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it is held: %v", err)
	}
	unlock()
	unlock, err = Directory(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if _, err := Directory(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that does not exist: %v", err)
	}
}
