package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"
)

// startInit starts the machine's init and waits until the root is complete.
func startInit(r request, g *cgroup, w *watch) (*exec.Cmd, error) {
	cmd, err := child(roleInit, r, unix.CLONE_NEWNET|unix.CLONE_NEWCGROUP)
	if err != nil {
		return nil, err
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	cmd.ExtraFiles = []*os.File{theirs}
	err = g.within(func() error { return w.start(cmd) })
	theirs.Close()
	if err != nil {
		if cmd.Process != nil {
			w.end()
			cmd.Wait()
		}
		return nil, fmt.Errorf("starting the machine's init: %w", err)
	}
	b, err := io.ReadAll(ready)
	if err == nil && string(b) != "ready" {
		err = errors.New("it ended before the root was complete")
	}
	if err != nil {
		w.end()
		return nil, fmt.Errorf("the machine's init: %w (%v)", err, cmd.Wait())
	}
	return cmd, nil
}

// runInit is the first process of the machine. It makes the root, and then waits for the orphans of
// other programs.
func runInit() error {
	ready := os.NewFile(3, "ready")
	unix.CloseOnExec(3)
	r, err := childRequest()
	if err != nil {
		return err
	}
	signal.Ignore()
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	root := rootfs{root: r.Store + "/root", layer: r.Layer, upper: r.Store + "/upper", work: r.Store + "/work"}
	if err := root.build(); err != nil {
		return err
	}
	if err := mountCgroup(root.root, r.Controllers); err != nil {
		return err
	}
	if err := root.identify(r.Name); err != nil {
		return err
	}
	if err := root.enter(); err != nil {
		return err
	}
	// As a service manager leaves it: what programs mount in namespaces of theirs may come back.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("sharing mounts: %w", err)
	}
	if _, err := ready.WriteString("ready"); err != nil {
		return err
	}
	ready.Close()
	for range children {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err != unix.EINTR && (err != nil || pid <= 0) {
				break
			}
		}
	}
	return nil
}

// identify gives the machine a name of its own.
func (r rootfs) identify(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return os.NewSyscallError("sethostname", err)
	}
	for path, content := range map[string]string{
		"etc/hostname":    name + "\n",
		"etc/hosts":       "127.0.0.1\tlocalhost " + name + "\n::1\tlocalhost " + name + "\n",
		"etc/resolv.conf": "nameserver " + lan4.Addr().String() + "\n",
		"etc/machine-id":  "b0c5e1ab7e2b4e5a9d1c000000000001\n",
	} {
		if err := r.write(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
