package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv marks the second run of the program.
const insideEnv = "BOXWIRE_BENCH_INSIDE"

// outside prepares what needs the machine's own namespaces, and runs the program
// again.
func outside(chosen []*row) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	var env []string
	if slices.ContainsFunc(chosen, func(r *row) bool { return r.plugins }) {
		dir, err := os.MkdirTemp("", "bench-plugins-")
		if err == nil {
			defer os.RemoveAll(dir)
			err = buildPlugins(ctx, dir)
		}
		if ctx.Err() != nil {
			return 1
		}
		env = append(env, pluginsEnviron(dir, err))
	}
	return again(ctx, env)
}

// again runs the program once more in a network, a mount and a PID namespace
// that end with it, so that nothing it makes stays behind, and returns its
// status. A user without privileges gets a user namespace as well.
func again(ctx context.Context, env []string) int {
	const flags = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID
	code, err := runAgain(ctx, env, flags)
	if errors.Is(err, unix.EPERM) {
		code, err = runAgain(ctx, env, flags|unix.CLONE_NEWUSER)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: making namespaces to work in:", err)
		return 1
	}
	return code
}

func runAgain(ctx context.Context, env []string, flags uintptr) (int, error) {
	runtime.LockOSThread() // the child dies with the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // it ends by itself
	cmd.Env = append(append(os.Environ(), insideEnv+"=1"), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// prepareMounts gives the program's mount namespace a /proc and a /run of its own.
func prepareMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	return nil
}
