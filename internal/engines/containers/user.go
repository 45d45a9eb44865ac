//go:build linux

package containers

import (
	"fmt"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

// NewUser adds a user to the machine whose containers podman runs without root, with the configuration of New.
// It needs the packages uidmap and slirp4netns.
func NewUser(t testing.TB, m *machine.Machine, name string, uid int) *Podman {
	t.Helper()
	id, home, run := fmt.Sprint(uid), "/home/"+name, fmt.Sprintf("/run/user/%d", uid)
	m.Run(t, "useradd", "--uid", id, "--user-group", "--home-dir", home, name)
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		m.WriteFile(t, file, name+":200000:65536\n", 0o644)
	}
	m.Run(t, "install", "-d", "-o", id, "-g", id, "-m", "0700", home, run)
	return &Podman{m: m, user: []string{
		"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups", "env", "HOME=" + home, "XDG_RUNTIME_DIR=" + run, "USER=" + name,
		"--chdir=" + home,
	}}
}
