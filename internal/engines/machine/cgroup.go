package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	cgroupDir    = "/sys/fs/cgroup"
	initCgroup   = "init"             // below it, the machine's processes
	cgroupPrefix = "boxwire-engines-" // followed by the supervisor's pid
)

// cgroup is the control group of a machine in the unified hierarchy. A machine has that one only,
// also where the real one has the controllers in hierarchies of version 1, unless it asks for
// controllers.
type cgroup struct {
	root string // where the hierarchy is mounted
	dir  string
	home string // the supervisor's own
	old  []hierarchy
}

// newCgroup mounts the hierarchy at root and makes the machine's group.
func newCgroup(root string, controllers bool) (*cgroup, error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	if err := mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
		return nil, err
	}
	sweepCgroups(root)
	own, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	c := &cgroup{root: root, dir: root + "/" + cgroupPrefix + strconv.Itoa(os.Getpid()), home: root + own}
	if err := os.Mkdir(c.dir, 0o755); err != nil || !controllers {
		return c, err
	}
	c.old, err = newHierarchies(root + "-old")
	return c, err
}

// ownCgroup is the path of this process's group in the unified hierarchy.
func ownCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("/proc/self/cgroup has no group of the unified hierarchy")
}

// within runs start with this process in the machine's group, so that a child's cgroup namespace
// has the group as its root.
func (c *cgroup) within(start func() error) error {
	err := c.join(func(h hierarchy) string { return h.dir })
	if err == nil {
		err = start()
	}
	return errors.Join(err, c.join(func(h hierarchy) string { return h.home }))
}

// join moves this process in all hierarchies.
func (c *cgroup) join(to func(hierarchy) string) error {
	for _, h := range append(c.old, hierarchy{dir: c.dir, home: c.home}) {
		if err := joinCgroup(to(h)); err != nil {
			return err
		}
	}
	return nil
}

// joinCgroup moves this process.
func joinCgroup(dir string) error {
	return os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0)
}

// remove removes the group and those that programs made below it. The kernel takes a group for busy
// until the last of its processes has been forgotten, and sends no event of that.
func (c *cgroup) remove() error {
	err := removeCgroup(c.dir)
	for _, h := range c.old {
		err = errors.Join(err, removeCgroup(h.dir))
	}
	return err
}

func removeCgroup(dir string) error {
	var err error
	for range 500 {
		if err = removeTree(dir); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// removeTree removes directories, the innermost first. Their files go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// sweepCgroups removes groups whose supervisor was killed.
func sweepCgroups(root string) {
	dirs, _ := filepath.Glob(root + "/" + cgroupPrefix + "*")
	for _, dir := range dirs {
		pid := strings.TrimPrefix(filepath.Base(dir), cgroupPrefix)
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			_ = removeTree(dir)
		}
	}
}

// mountCgroup mounts the hierarchy in a machine and hands the controllers on to the groups that
// programs make. The kernel allows that only if the root of the namespace has no processes.
func mountCgroup(root string, controllers bool) error {
	dir := root + cgroupDir
	old, err := hierarchies()
	if err != nil {
		return err
	}
	if controllers && len(old) > 0 {
		if err := mountHierarchies(root, old); err != nil {
			return err
		}
		dir += "/" + unifiedCgroup
	}
	if err := mount("cgroup2", dir, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := os.Mkdir(dir+"/"+initCgroup, 0o755); err != nil {
		return err
	}
	if err := joinCgroup(dir + "/" + initCgroup); err != nil {
		return err
	}
	b, err := os.ReadFile(dir + "/cgroup.controllers")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(b)) {
		if err := enableController(dir, name); err != nil {
			return fmt.Errorf("handing on the controller %s: %w", name, err)
		}
	}
	return nil
}

// enableController hands a controller on. The supervisor may not have left the group yet: the kernel
// calls it busy until then.
func enableController(dir, name string) error {
	var err error
	for range 500 {
		if err = os.WriteFile(dir+"/cgroup.subtree_control", []byte("+"+name), 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
