package netns

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mountPoint is a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)):
//
//	36 35 0:4 net:[4026532177] /run/netns/web rw - nsfs nsfs rw
type mountPoint struct {
	id, parent string
	dev        string // major:minor of the file system
	root       string // what of it is mounted
	path       string // where
}

// inode returns the inode number of a network namespace that is mounted there.
func (m mountPoint) inode() (uint64, bool) { return parseNS(m.root) }

// within returns where a path below the mount point is in the file system.
func (m mountPoint) within(path string) string {
	return filepath.Join(m.root, strings.TrimPrefix(path, m.path))
}

func parseMounts(info []byte) (list []mountPoint) {
	for line := range bytes.Lines(info) {
		if f := strings.Fields(string(line)); len(f) > 4 {
			list = append(list, mountPoint{f[0], f[1], f[2], unescape(f[3]), unescape(f[4])})
		}
	}
	return list
}

// mountedElsewhere looks for a process in another mount namespace, in which a network
// namespace is mounted on a file that has no mount here. Removing the file would unmount it
// there. The kernel does not report such mounts, so the mount tables of all visible
// processes are searched.
func mountedElsewhere(ctx context.Context, path string) (h Holder, ok bool) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return h, false
	}
	own, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return h, false
	}
	var at mountPoint
	for _, m := range parseMounts(own) { // the later of two lies over the earlier
		if len(m.path) >= len(at.path) && (m.path == "/" || dir == m.path || strings.HasPrefix(dir, m.path+"/")) {
			at = m
		}
	}
	wanted := at.within(filepath.Join(dir, filepath.Base(path)))
	home, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return h, false
	}
	seen := map[string]bool{home: true}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || ctx.Err() != nil {
			continue
		}
		in, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil || seen[in] {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
		if err != nil {
			continue
		}
		seen[in] = true
		if covers(parseMounts(info), at.dev, wanted) {
			if now, err := os.ReadFile("/proc/thread-self/mountinfo"); err != nil || covers(parseMounts(now), at.dev, wanted) {
				return h, false // by now it is one here, too
			}
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			return Holder{Kind: HolderMount, Pid: pid, Comm: strings.TrimSpace(string(comm)), Path: path}, true
		}
	}
	return h, false
}

// covers reports whether a network namespace is mounted on a file of a file system.
func covers(list []mountPoint, dev, file string) bool {
	byID := make(map[string]mountPoint, len(list))
	for _, m := range list {
		byID[m.id] = m
	}
	for _, m := range list {
		if _, ok := m.inode(); !ok {
			continue
		}
		if below, ok := byID[m.parent]; ok && below.dev == dev && below.within(m.path) == file {
			return true
		}
	}
	return false
}
