package netns_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestEnsure(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	d := netns.Dir(t.TempDir() + "/names")
	first, err := d.Ensure(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Delete(t.Context())
	if first.Name() != "web" || first.Path() != string(d)+"/web" {
		t.Errorf("it is %q at %q", first.Name(), first.Path())
	}
	again, err := d.Ensure(t.Context(), "web")
	if err != nil || !again.Equal(first) || again.Path() != first.Path() {
		t.Fatalf("%v at %q, %v; want %v", again, again.Path(), err, first)
	}
	again.Close()
	opened, err := d.Open(t.Context(), "web")
	if err != nil || !opened.Equal(first) {
		t.Fatalf("opened: %v, %v; want %v", opened, err, first)
	}
	opened.Close()
}

// What a Create that was killed leaves is replaced.
func TestEnsureOfALeftover(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	d := netns.Dir(t.TempDir())
	for name, age := range map[string]time.Duration{"old": time.Hour, "young": 0, "of the future": -time.Hour} {
		name = strings.ReplaceAll(name, " ", "-")
		path := string(d) + "/" + name
		when := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, nil, 0), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ns, err := d.Ensure(t.Context(), name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer ns.Delete(t.Context())
		if took := time.Since(began); age == 0 && took < time.Second/2 {
			t.Errorf("%s: no wait for its owner, but %v", name, took)
		}
		if again, err := d.Open(t.Context(), name); err != nil || !again.Equal(ns) {
			t.Errorf("%s: %v, %v; want %v", name, again, err, ns)
		} else {
			again.Close()
		}
	}
}

// A program that has made the file mounts its namespace while Ensure waits.
func TestEnsureWhileAnotherCreates(t *testing.T) {
	t.Parallel()
	other := netnstest.New(t)
	d := netns.Dir(t.TempDir())
	path := string(d) + "/web"
	if err := os.WriteFile(path, nil, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(path, unix.MNT_DETACH)
	var ns *netns.NS
	var err error
	over := make(chan struct{})
	go func() {
		defer close(over)
		ns, err = d.Ensure(t.Context(), "web")
	}()
	merr := other.WithFd(func(fd int) error {
		return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), path, "", unix.MS_BIND, "")
	})
	<-over
	if err != nil || merr != nil || !ns.Equal(other) {
		t.Fatalf("%v, %v; want %v (%v)", ns, err, other, merr)
	}
	ns.Close()
}

func TestEnsureRefuses(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	d := netns.Dir(t.TempDir())
	err := errors.Join(os.Mkdir(string(d)+"/directory", 0o755), unix.Mkfifo(string(d)+"/pipe", 0o644),
		os.WriteFile(string(d)+"/content", []byte("x"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"directory": netns.ErrNotNamespace, "pipe": netns.ErrNotNamespace, "content": netns.ErrNotNamespace,
		"": os.ErrInvalid, ".": os.ErrInvalid, "a/b": os.ErrInvalid, "a b": os.ErrInvalid,
	} {
		ns, err := d.Ensure(t.Context(), name)
		var e *netns.Error
		if !errors.Is(err, want) || !errors.As(err, &e) || e.Op != "netns.Ensure" {
			t.Errorf("%q: %v, %v; want %v", name, ns, err, want)
		}
	}
	for _, name := range []string{"directory", "pipe", "content"} {
		if _, err := os.Lstat(string(d) + "/" + name); err != nil {
			t.Errorf("%s was removed: %v", name, err)
		}
	}
	if _, err := netns.Dir("relative").Ensure(t.Context(), "web"); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a relative directory: %v", err)
	}
}

// A name that another mount namespace alone has would be taken away there.
func TestEnsureOfANameElsewhere(t *testing.T) {
	if !inChild(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}) {
		return
	}
	netnstest.Need(t)
	d := netns.Dir(t.TempDir())
	ns, err := d.Create(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	other := exec.Command("/proc/self/exe", "-test.run=^TestChildWaits$", "-test.v")
	other.Env = append(os.Environ(), childEnv+"=TestChildWaits")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer in.Close()
	path, hour := string(d)+"/web", time.Now().Add(-time.Hour)
	if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Chtimes(path, hour, hour)); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Ensure(t.Context(), "web"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("%v, %v; want EBUSY", got, err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the name was removed: %v", err)
	}
}

func TestChildWaits(t *testing.T) {
	childOnly(t)
	os.Stdin.Read(make([]byte, 1))
}

const raced = 60

// Processes that ensure the same names at the same time get the same namespaces.
func TestEnsureInSeveralProcesses(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	dir := t.TempDir()
	var outs [3]strings.Builder
	var wg sync.WaitGroup
	for i := range outs {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestChildEnsures$", "-test.v")
		cmd.Env = append(os.Environ(), childEnv+"=TestChildEnsures", dirEnv+"="+dir)
		in, ierr := cmd.StdinPipe()
		out, oerr := cmd.StdoutPipe()
		if err := errors.Join(ierr, oerr, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		defer func() {
			in.Close() // the child waits for this, and has left nothing then
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}()
		wg.Go(func() {
			lines := bufio.NewScanner(out)
			for lines.Scan() && lines.Text() != "over" {
				if strings.HasPrefix(lines.Text(), "box") {
					fmt.Fprintln(&outs[i], lines.Text())
				}
			}
		})
	}
	wg.Wait()
	for i := range raced {
		if err := netns.Dir(dir).Delete(t.Context(), fmt.Sprint("box", i)); err != nil {
			t.Error(err)
		}
	}
	for i := range outs {
		if out := outs[i].String(); strings.Count(out, "\n") != raced || out != outs[0].String() {
			t.Errorf("process %d:\n%s\nprocess 0:\n%s", i, out, outs[0].String())
		}
	}
}

func TestChildEnsures(t *testing.T) {
	childOnly(t)
	for i := range raced {
		name := fmt.Sprint("box", i)
		ns, err := netns.Dir(os.Getenv(dirEnv)).Ensure(t.Context(), name)
		if err != nil {
			fmt.Println(name, err)
			continue
		}
		fmt.Println(name, ns.ID())
		ns.Close()
	}
	fmt.Println("over")
	os.Stdin.Read(make([]byte, 1))
}
