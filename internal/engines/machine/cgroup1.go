package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unifiedCgroup is where a machine with hierarchies of version 1 has the unified one.
const unifiedCgroup = "unified"

// hierarchy is one of the hierarchies of version 1 that the real machine has, where its controllers
// may be. A machine has them if its Config asks for controllers.
type hierarchy struct {
	name string // of its directory: "cpu,cpuacct", "systemd"
	data string // mount's options
	dir  string // the machine's group, where the supervisor has it mounted
	home string // the supervisor's own
}

// hierarchies reads which there are, and the path of this process's group in each.
func hierarchies() ([]hierarchy, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for line := range strings.Lines(string(b)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] == "" { // that is the unified one
			continue
		}
		h := hierarchy{name: fields[1], data: fields[1], home: fields[2]}
		if name, ok := strings.CutPrefix(h.name, "name="); ok {
			h.name, h.data = name, "none,"+h.data
		}
		all = append(all, h)
	}
	return all, nil
}

// newHierarchies mounts each below root and makes the machine's group in it, below the
// supervisor's own, whose limits stay valid.
func newHierarchies(root string) ([]hierarchy, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	for i := range all {
		h := &all[i]
		at := root + "/" + h.name
		if err := os.MkdirAll(at, 0o755); err != nil {
			return nil, err
		}
		if err := mount("cgroup", at, "cgroup", 0, h.data); err != nil {
			return nil, err
		}
		h.home = filepath.Join(at, h.home)
		sweepCgroups(h.home)
		h.dir = filepath.Join(h.home, cgroupPrefix+strconv.Itoa(os.Getpid()))
		if err := os.Mkdir(h.dir, 0o755); err != nil {
			return nil, err
		}
		if err := h.inherit("cpuset.cpus", "cpuset.mems"); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// inherit copies settings of the group above. A new group of the controller cpuset has no processor, and takes
// no process.
func (h hierarchy) inherit(files ...string) error {
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(h.home, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(h.dir, name), b, 0)
		}
		if err != nil {
			return fmt.Errorf("a group of %s: %w", h.name, err)
		}
	}
	return nil
}

// mountHierarchies mounts the hierarchies in a machine, as a service manager does: each in a directory
// with its controllers' names, a link for each of several, and the unified one beside them.
func mountHierarchies(root string, all []hierarchy) error {
	at := root + cgroupDir
	if err := mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return err
	}
	for _, h := range all {
		dir := at + "/" + h.name
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := mount("cgroup", dir, "cgroup", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, h.data); err != nil {
			return err
		}
		for _, one := range strings.Split(h.name, ",") {
			if err := os.Symlink(h.name, at+"/"+one); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
	}
	return os.Mkdir(at+"/"+unifiedCgroup, 0o755)
}

// joinHierarchies moves the calling thread into the machine that it has entered, and with it what it
// starts: CgroupFD is about the unified hierarchy alone.
func joinHierarchies() error {
	files, _ := filepath.Glob(cgroupDir + "/*/tasks")
	for _, file := range files {
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}
