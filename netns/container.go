package netns

import (
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// minPrefix is how much of an id has to be given: what `docker ps` prints.
const minPrefix = 12

// maxContainerID is containerd's limit; other runtimes have 64 hex digits.
const maxContainerID = 76

// checkContainerID refuses what cannot be a container's id, and takes off the
// runtime that Kubernetes writes before it: "containerd://3f2a...".
func checkContainerID(id string) (string, error) {
	if _, rest, ok := strings.Cut(id, "://"); ok {
		id = rest
	}
	switch {
	case id == "":
		return "", refuse.Input("the container id is empty")
	case len(id) > maxContainerID:
		return "", refuse.Input("the container id has %d bytes, %d is the most", len(id), maxContainerID)
	case strings.Trim(id, "._-") != id || strings.IndexFunc(id, noContainerID) >= 0:
		return "", refuse.Input("%q cannot be the id of a container", id)
	}
	for _, unit := range []string{".slice", ".service", ".scope"} {
		if strings.HasSuffix(id, unit) {
			return "", refuse.Input("%q is the name of a systemd unit", id)
		}
	}
	return id, nil
}

func noContainerID(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
}

// A claim is what a cgroup says about a process: that it belongs to a container.
type claim struct {
	id string // the container's whole id

	// rank is lower for a cgroup that fewer can make: one of root's on the machine
	// is 0, one below a user's own slice 1, and each container around it adds 2.
	// A user who manages cgroups, and a container that does, can name one there after
	// another container.
	rank int
}

// containerIn returns the container that a cgroup path belongs to, if it is the
// wanted one.
//
// Runtimes write the id as the last part of a component's name: "<id>" alone
// with the cgroupfs driver, "docker-<id>.scope", "libpod-<id>.scope",
// "crio-<id>.scope" with that of systemd, "...slice:cri-containerd:<id>" where
// one meets the other. A container in a container has both ids, and is the inner
// one. The ids are 64 hex digits, but containerd takes any name.
func containerIn(path, want string) (c claim, ok bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if parts[0] == "user.slice" {
		c.rank++
	}
	for i, part := range parts {
		id := idOf(part)
		if id == "" && isNamed(part, i, want) {
			id = want
		}
		if id == "" {
			continue
		}
		if c.id != "" {
			c.rank += 2
		}
		c.id = id
	}
	return c, c.id != "" && matches(c.id, want)
}

// idOf returns the id that a component of a cgroup path ends with, or "".
func idOf(part string) string {
	if strings.HasSuffix(part, ".slice") || isMonitor(part) {
		return ""
	}
	unit := strings.TrimSuffix(part, ".scope")
	if id := unit[strings.LastIndexAny(unit, "-:")+1:]; isID(id) {
		return id
	}
	return ""
}

// isNamed recognizes the component number i of a cgroup path as that of a container
// with a name for an id.
func isNamed(part string, i int, want string) bool {
	if isMonitor(part) {
		return false
	}
	if unit, ok := strings.CutSuffix(part, ".scope"); ok {
		prefix, ok := strings.CutSuffix(unit, "-"+want)
		return ok && isRuntime(prefix)
	}
	if _, name, ok := strings.Cut(part, ":"); ok {
		return strings.HasSuffix(name, ":"+want)
	}
	return part == want && i == 1 // ctr: /<namespace>/<id>
}

// matches says whether id is the wanted one, or begins with it.
func matches(id, want string) bool {
	return id == want || len(want) >= minPrefix && strings.HasPrefix(id, want)
}

// isMonitor recognizes the cgroups of podman's and CRI-O's monitor, a process
// beside the container that outlives it.
func isMonitor(part string) bool {
	return strings.Contains(part, "conmon") || part == "supervisor"
}

// isRuntime recognizes what stands before an id in the name of a scope.
func isRuntime(prefix string) bool {
	switch prefix {
	case "docker", "libpod", "crio", "cri-containerd", "nerdctl", "containerd":
		return true
	}
	return false
}

// isID recognizes the ids that runtimes make.
func isID(s string) bool {
	return len(s) == 64 && isHex(s)
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// containerOf looks through the lines of /proc/PID/cgroup (cgroups(7)), which are
// "hierarchy:controllers:path". With several claims the weakest counts.
func containerOf(cgroup, want string) (c claim, ok bool) {
	for line := range strings.Lines(cgroup) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		if one, found := containerIn(f[2], want); found && (!ok || one.rank > c.rank) {
			c, ok = one, true
		}
	}
	return c, ok
}

// monitored returns the id of the container that a monitor's command line names,
// if it is the wanted one: "containerd-shim-runc-v2 -namespace moby -id <id>",
// "conmon -c <id>". It is how a container is found that has no cgroup of its own,
// as a normal user's may.
func monitored(cmdline, want string) (id string, ok bool) {
	args := strings.Split(strings.TrimRight(cmdline, "\x00"), "\x00")
	program := args[0][strings.LastIndexByte(args[0], '/')+1:]
	if program != "conmon" && !strings.HasPrefix(program, "containerd-shim") {
		return "", false
	}
	for i, arg := range args[:len(args)-1] {
		switch arg {
		case "-id", "--id", "-c", "--cid":
			id = args[i+1]
			return id, id == want || isID(id) && matches(id, want)
		}
	}
	return "", false
}
