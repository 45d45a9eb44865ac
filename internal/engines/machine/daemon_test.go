package machine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"golang.org/x/sys/unix"
)

func TestDaemon(t *testing.T) {
	t.Parallel()
	m := machine.New(t, machine.Config{})
	d := m.Daemon(t, "sh", "-c", "trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.01; done")
	up := func(n int) {
		t.Helper()
		d.Ready(t, func() error {
			if strings.Count(d.Log(), "up\n") < n {
				return errors.New("not up")
			}
			return nil
		})
	}
	up(1)
	d.Restart(t)
	up(2)
	if d.Log() != "up\nterm\nup\n" {
		t.Errorf("its log is %q", d.Log())
	}
	d.Kill(t)
	<-d.Done()
	d.Start(t)
	up(3)
	if strings.Count(d.Log(), "term") != 1 {
		t.Errorf("killed, its log is %q", d.Log())
	}
	if err := unix.Kill(d.Pid(), 0); err != nil {
		t.Errorf("its pid: %v", err)
	}
	d.Stop(t)
}
