package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// layered are the directories of the real root that a machine has, each as an overlay of its own. The
// root as a whole cannot be a layer: the cache lies in it, and overlayfs refuses layers one of
// which lies in another (ELOOP).
var layered = []string{"bin", "etc", "lib", "lib32", "lib64", "libx32", "opt", "sbin", "usr", "var"}

// empty are the other directories of a root.
var empty = []string{"boot", "dev", "home", "media", "mnt", "proc", "root", "run", "srv", "sys", "tmp"}

// scratch are directories on which a tmpfs lies. Engines mount overlays in theirs, whose upper layer
// cannot be on an overlay.
// What the real machine has besides its packages is hidden.
var scratch = []string{
	"run", "tmp", "root", "home", "var/tmp", "usr/local",
	"var/lib/docker", "var/lib/containerd", "var/lib/containers", "var/lib/cni", "var/lib/kubelet",
}

// devices are the nodes of /dev that a machine shares with the real one.
var devices = []string{"full", "fuse", "kmsg", "net/tun", "null", "random", "tty", "urandom", "zero"}

// rootfs builds a root directory.
type rootfs struct {
	root  string // where it is mounted
	layer string // the packages' layer below what is written, or empty
	upper string // what is written
	work  string // overlayfs's own directory, on the file system of upper
}

// build mounts all of the root but what depends on the role.
func (r rootfs) build() error {
	if err := os.MkdirAll(r.root, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", r.root, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	for _, name := range empty {
		if err := os.Mkdir(r.root+"/"+name, 0o755); err != nil {
			return err
		}
	}
	for _, name := range layered {
		if err := r.overlay(name); err != nil {
			return err
		}
	}
	for _, name := range scratch {
		if err := r.tmpfs(name); err != nil {
			return err
		}
	}
	if err := mount("proc", r.root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount("sysfs", r.root+"/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := r.dev(); err != nil {
		return err
	}
	return os.MkdirAll(r.root+"/run/lock", 0o1777)
}

// overlay mounts a directory of the real root under what the packages and the machine write, or
// repeats a link.
func (r rootfs) overlay(name string) error {
	info, err := os.Lstat("/" + name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		to, err := os.Readlink("/" + name)
		if err != nil {
			return err
		}
		return os.Symlink(to, r.root+"/"+name)
	}
	lower := "/" + name
	if _, err := os.Stat(r.layer + "/" + name); err == nil && r.layer != "" {
		lower = r.layer + "/" + name + ":" + lower
	}
	upper, work, at := r.upper+"/"+name, r.work+"/"+name, r.root+"/"+name
	for _, dir := range []string{upper, work, at} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	err = mount("overlay", at, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work)
	switch {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: the cache must not lie in /%s (%s)", err, name, cacheEnv)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: the cache must lie on a file system that overlayfs can write to (%s)", err, cacheEnv)
	}
	return err
}

// tmpfs mounts an empty directory that all may write to if its name says so.
func (r rootfs) tmpfs(name string) error {
	at, mode := r.root+"/"+name, "mode=0755"
	switch name {
	case "tmp", "var/tmp":
		mode = "mode=1777"
	case "root":
		mode = "mode=0700"
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	return mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, mode)
}

// dev makes /dev: the nodes of the real one that change nothing there, and terminals of its own.
func (r rootfs) dev() error {
	dev := r.root + "/dev"
	if err := mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=0755"); err != nil {
		return err
	}
	for _, name := range devices {
		if _, err := os.Stat("/dev/" + name); err != nil {
			continue
		}
		at := dev + "/" + name
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, nil, 0o666); err != nil {
			return err
		}
		if err := mount("/dev/"+name, at, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		// It can be written to, but not given another mode, as systemd-udevd would.
		if err := mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID, ""); err != nil {
			return err
		}
	}
	for _, m := range [][3]string{
		{"devpts", "pts", "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"tmpfs", "shm", "mode=1777"},
		{"mqueue", "mqueue", ""},
	} {
		if err := os.Mkdir(dev+"/"+m[1], 0o755); err != nil {
			return err
		}
		if err := mount(m[0], dev+"/"+m[1], m[0], unix.MS_NOSUID|unix.MS_NOEXEC, m[2]); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(to, dev+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

// write puts a file into the root. A link of the name is replaced.
func (r rootfs) write(name, content string, mode os.FileMode) error {
	path := r.root + "/" + name
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// enter makes the root that of this process and of its mount namespace.
func (r rootfs) enter() error {
	if err := os.Chdir(r.root); err != nil {
		return err
	}
	// The old root lies on the new one after that (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	return os.Chdir("/")
}

// mount is mount(2), with an error that says what was tried.
func mount(source, at, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, at, kind, flags, options); err != nil {
		return fmt.Errorf("mounting %s at %s (%s): %w", source, at, options, err)
	}
	return nil
}
