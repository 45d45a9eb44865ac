package browser

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

const (
	// insideEnv marks the run in namespaces of its own. Its value is the directory of the program and of
	// the browser's files.
	insideEnv = "BOXWIRE_BROWSER_INSIDE"

	// commEnv makes the test binary a process of a name that waits for its end.
	commEnv = "BOXWIRE_BROWSER_COMM"

	requireEnv     = "BOXWIRE_REQUIRE_CHROMIUM"
	screenshotsEnv = "BOXWIRE_SCREENSHOTS"
)

// missing says why there is nothing to test with; "" when there is.
var missing string

func TestMain(m *testing.M) {
	if comm := os.Getenv(commEnv); comm != "" {
		waitAs(comm)
	}
	if os.Getenv(insideEnv) == "" {
		code, err := again()
		if err == nil {
			os.Exit(code)
		}
		missing = err.Error()
	} else if err := prepare(); err != nil {
		missing = err.Error()
	}
	code := m.Run()
	chromium.stop()
	os.Exit(code)
}

// waitAs gives the process a name and waits for the end of its standard input.
func waitAs(comm string) {
	if err := os.WriteFile("/proc/self/comm", []byte(comm), 0); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

// need skips a test where there is nothing to test with.
func need(t testing.TB) {
	t.Helper()
	switch {
	case missing == "":
	case os.Getenv(requireEnv) == "1":
		t.Fatal(missing)
	default:
		t.Skip(missing)
	}
}

// browserPath is the browser.
func browserPath() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no Chromium: install the package chromium")
}

// again builds the program, and runs the test binary once more in namespaces of its own. An error means
// that it did not run.
func again() (int, error) {
	if _, err := browserPath(); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "boxwire-browser")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "map"), "github.com/boxwire/boxwire/examples/map").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1, nil
	}
	const flags = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID
	code, err := inside(dir, flags)
	if errors.Is(err, unix.EPERM) {
		code, err = inside(dir, flags|unix.CLONE_NEWUSER)
	}
	if err != nil {
		return 0, fmt.Errorf("there are no namespaces to test in: %w", err)
	}
	return code, nil
}

// inside runs the test binary in new namespaces. When it ends, the kernel ends all that it has started.
func inside(dir string, flags uintptr) (int, error) {
	runtime.LockOSThread() // the child dies with the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // go test -timeout sends SIGQUIT for the stacks
			case <-over:
				return
			}
		}
	}()
	err := cmd.Wait()
	if cmd.ProcessState == nil {
		return 0, err
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	fmt.Fprintln(os.Stderr, "browser: the test run was ended:", cmd.ProcessState)
	return 1, nil
}

// prepare makes the new namespaces ready for a machine.
func prepare() error {
	if os.Getpid() != 1 {
		return errors.New(insideEnv + " is set, and this is no pid namespace of its own")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting a /proc of the tests' own: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting a /run of the tests' own: %w", err)
	}
	for _, env := range os.Environ() { // the browser asks no service of the user's desktop
		if name, _, _ := strings.Cut(env, "="); strings.HasPrefix(name, "DBUS_") || strings.HasPrefix(name, "XDG_") {
			os.Unsetenv(name)
		}
	}
	return os.Mkdir(netns.DefaultDir, 0o755)
}
