package machine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// request is what the test asks of a supervisor, and a supervisor of an installer or init.
type request struct {
	Name     string
	Packages []string
	// Controllers is whether the machine has the hierarchies of version 1.
	Controllers bool
	Cache       string // the directory of layers
	Store       string // a tmpfs of the supervisor
	Layer       string // the directory of the packages' files; empty without packages
}

// reply is the supervisor's answer.
type reply struct {
	Pid     int    // of the machine's init
	Error   string // why there is no machine
	Missing bool   // the packages could not be installed
}

// supervisor is the test's side of a supervisor: a process that ends the machine when its standard
// input ends, and so also when the test is killed.
type supervisor struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	out     logBuffer
	pid     int
	missing bool
}

// logBuffer keeps what a process writes.
type logBuffer struct {
	mu  sync.Mutex
	buf []byte
}

// Write appends to the log.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	return len(p), nil
}

// String returns the log so far.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf)
}

// log is what the supervisor and its children wrote.
func (s *supervisor) log() string { return s.out.String() }

// startSupervisor starts a supervisor and waits for its machine. With an error, a supervisor that is
// not nil has ended.
func startSupervisor(r request) (*supervisor, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	r.Cache = cache
	s := new(supervisor)
	s.cmd = exec.Command("/proc/self/exe")
	s.cmd.Env = append(os.Environ(), roleEnv+"="+roleSupervisor)
	s.cmd.Stderr = &s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS}
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	var answer reply
	err = json.NewEncoder(s.stdin).Encode(r)
	if err == nil {
		err = json.NewDecoder(stdout).Decode(&answer)
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		s.stop()
		s.missing = answer.Missing
		return s, fmt.Errorf("%w\n%s", err, s.log())
	}
	s.pid = answer.Pid
	return s, nil
}

// stop ends the machine and waits until nothing of it is left.
func (s *supervisor) stop() error {
	s.stdin.Close()
	return s.cmd.Wait()
}

// supervise is the supervisor's side. It is in a mount namespace of its own.
func supervise() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	w := &watch{ended: make(chan struct{})}
	go func() {
		io.Copy(io.Discard, in)
		w.end()
	}()
	g, err := prepare(&r)
	if err == nil {
		defer g.remove()
		err = r.installed(w)
	}
	var missing *missingError
	if err != nil {
		return answer(reply{Error: err.Error(), Missing: errors.As(err, &missing)})
	}
	init, err := startInit(r, g, w)
	if err != nil {
		return answer(reply{Error: err.Error()})
	}
	if err := answer(reply{Pid: init.Process.Pid}); err != nil {
		w.end()
	}
	<-w.ended
	init.Wait()
	return g.remove()
}

func answer(r reply) error { return json.NewEncoder(os.Stdout).Encode(r) }

// prepare makes what all processes of the machine share: a mount namespace that nothing gets out of,
// a tmpfs for what is written, and a cgroup.
func prepare(r *request) (*cgroup, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	r.Store = r.Cache + "/mnt"
	if err := os.MkdirAll(r.Store, 0o700); err != nil {
		return nil, err
	}
	if err := mount("tmpfs", r.Store, "tmpfs", 0, "mode=0755"); err != nil {
		return nil, err
	}
	return newCgroup(r.Store+"/cgroup", r.Controllers)
}

// errEnded is why nothing is begun any more.
var errEnded = errors.New("the test has ended")

// watch kills the process that runs for the test when the test has ended.
type watch struct {
	mu    sync.Mutex
	child *os.Process
	over  bool
	ended chan struct{}
}

// start starts a child; after the test has ended it is an error.
func (w *watch) start(cmd *exec.Cmd) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return errEnded
	}
	err := cmd.Start()
	if err == nil {
		w.child = cmd.Process
	}
	return err
}

// end kills the child. It is the first process of a pid namespace, and so the last of it, too.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.over = true
	close(w.ended)
	if w.child != nil {
		w.child.Kill()
	}
}

// child makes a command that runs this program in a role, as the first process of new namespaces. It
// ends with the supervisor.
func child(role string, r request, flags uintptr) (*exec.Cmd, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", string(body))
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | flags,
		Pdeathsig:  unix.SIGKILL,
	}
	return cmd, nil
}

// childRequest is the request that child passed on.
func childRequest() (r request, err error) {
	return r, json.Unmarshal([]byte(os.Args[1]), &r)
}
