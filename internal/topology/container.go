package topology

import (
	"path"
	"strings"
)

// containerOf returns the container that a process belongs to by its cgroups (proc(5), cgroup): the
// one whose id is nearest to the process. The zero Container is none.
func containerOf(cgroups string) (c Container) {
	const idLen = 64
	for line := range strings.Lines(cgroups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		for dir := fields[2]; len(dir) > 1; dir = path.Dir(dir) {
			name := strings.TrimSuffix(path.Base(dir), ".scope")
			if len(name) < idLen || strings.Trim(name[len(name)-idLen:], "0123456789abcdef") != "" {
				continue
			}
			runtime := strings.TrimSuffix(name[:len(name)-idLen], "-")
			if parent := path.Base(path.Dir(dir)); runtime == "" && (parent == "docker" || parent == "libpod") {
				runtime = parent
			}
			return Container{ID: name[len(name)-idLen:], Runtime: runtime}
		}
	}
	return c
}
