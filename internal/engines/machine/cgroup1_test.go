package machine

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAMachineHasControllers(t *testing.T) {
	t.Parallel()
	t.Run("machine", func(t *testing.T) {
		m := New(t, Config{Controllers: true})
		own := m.Run(t, "cat", "/proc/self/cgroup")
		for line := range strings.Lines(own) {
			if path := strings.TrimSpace(line[strings.LastIndex(line, ":")+1:]); path != "/" && path != "/"+initCgroup {
				t.Errorf("a program is in %s, outside of the machine's group", strings.TrimSpace(line))
			}
		}
		// A group of a limit, as an engine makes it.
		m.Run(t, "sh", "-ec", `cd /sys/fs/cgroup
			if [ -d memory ]; then mkdir memory/box cpu/box; echo 64M >memory/box/memory.limit_in_bytes; echo 20 >cpu/box/cpu.shares
			else mkdir box; echo 64M >box/memory.max; echo 20 >box/cpu.weight; fi`)
	})
	filepath.WalkDir(cgroupDir, func(path string, d fs.DirEntry, err error) error {
		name, ours := strings.CutPrefix(filepath.Base(path), cgroupPrefix)
		if _, err := os.Stat("/proc/" + name); ours && err != nil {
			t.Errorf("%s is left", path)
		}
		return nil
	})
}
