package netnstest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/origin"
	"github.com/boxwire/boxwire/netns"
)

// leaksEnv set to "allow" keeps a run with leaks from failing.
const leaksEnv = "BOXWIRE_NETNSTEST_LEAKS"

// runAndLook runs the tests and looks at what they have left.
func runAndLook(m *testing.M) int {
	flag.Parse()
	if isSet("test.fuzz") || isSet("test.fuzzworker") {
		return m.Run() // its workers and their pipes are still there
	}
	if !isSet("test.bench") { // it would add to what is measured
		origin.Remember()
	}
	wakePoller()
	before := look()
	code := m.Run()
	if code != 0 {
		return code
	}
	if left := before.left(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "netnstest: the tests have left:\n  %s\n", strings.Join(left, "\n  "))
		if os.Getenv(leaksEnv) != "allow" {
			return 1
		}
	}
	return code
}

func isSet(name string) bool {
	f := flag.Lookup(name)
	return f != nil && f.Value.String() != "" && f.Value.String() != "false"
}

// wakePoller makes the runtime open the descriptors that it waits with.
func wakePoller() {
	if r, w, err := os.Pipe(); err == nil {
		r.SetReadDeadline(time.Unix(1, 0))
		r.Close()
		w.Close()
	}
}

// state is what a test can leave in the process, each with a description.
type state map[string]string

// look takes the process's state.
func look() state {
	s := make(state)
	s.descriptors()
	s.goroutines()
	s.children()
	s.mounts()
	s.threads()
	for _, e := range readDir(netns.DefaultDir) {
		s["name "+e] = "the name of a namespace, " + filepath.Join(netns.DefaultDir, e)
	}
	return s
}

// patience is how long threads and goroutines that end may take to.
var patience = 5 * time.Second

// left returns what is there now and was not before, and goes on being there.
func (s state) left() []string {
	deadline := time.Now().Add(patience)
	for {
		var left []string
		for key, what := range look() {
			if _, ok := s[key]; !ok {
				left = append(left, what)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			slices.Sort(left)
			return left
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func readDir(name string) []string {
	entries, _ := os.ReadDir(name) // what is not there has none
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

func (s state) descriptors() {
	for _, name := range readDir("/proc/self/fd") {
		to, err := os.Readlink("/proc/self/fd/" + name)
		if err != nil || strings.HasSuffix(to, "/fd") {
			continue // closed since: it was this reading's own
		}
		what := fmt.Sprintf("descriptor %s of %s", name, to)
		if fd, err := strconv.Atoi(name); err == nil {
			if stack := origin.Of(fd); stack != "" {
				what += ", opened by\n" + indent(stack)
			}
		}
		s["descriptor "+name+" "+to] = what
	}
}

// goroutines notes all but the calling one.
func (s state) goroutines() {
	buf := make([]byte, 1<<20)
	for runtime.Stack(buf, true) == len(buf) {
		buf = make([]byte, 2*len(buf))
	}
	buf = buf[:runtime.Stack(buf, true)]
	for i, g := range bytes.Split(buf, []byte("\n\n")) {
		stack := string(g)
		id, _, _ := strings.Cut(stack, " [")
		if i == 0 || strings.Contains(stack, "os/signal.signal_recv") { // that one never ends
			continue
		}
		s[id] = indent(stack)
	}
}

func (s state) children() {
	for _, task := range readDir("/proc/self/task") {
		b, _ := os.ReadFile("/proc/self/task/" + task + "/children")
		for pid := range strings.FieldsSeq(string(b)) {
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			s["process "+pid] = fmt.Sprintf("child process %s (%s)", pid, bytes.TrimSpace(comm))
		}
	}
}

func (s state) mounts() {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		// 36 35 0:4 net:[4026532177] /run/netns/web rw - nsfs nsfs rw
		if f := strings.Fields(line); len(f) > 4 && f[4] != netns.DefaultDir {
			s["mount "+f[0]+" "+f[4]] = fmt.Sprintf("mount of %s at %s", f[3], f[4])
		}
	}
}

// homes is where the process was when it was looked at first, before the tests, for
// each kind of namespace.
var homes = sync.OnceValue(func() map[string]string {
	m := make(map[string]string)
	for _, kind := range []string{"net", "mnt", "user"} {
		if home, err := os.Readlink("/proc/self/ns/" + kind); err == nil {
			m[kind] = home
		}
	}
	return m
})

// threads notes those that are not where the process was before the tests. The first
// thread is one of them when a goroutine that was locked to it has ended elsewhere: the
// runtime ends every other thread in that case, and parks that one.
func (s state) threads() {
	for kind, home := range homes() {
		for _, task := range readDir("/proc/self/task") {
			at, err := os.Readlink("/proc/self/task/" + task + "/ns/" + kind)
			if err != nil || at == home {
				continue
			}
			who := "thread " + task
			if task == strconv.Itoa(os.Getpid()) {
				who += " (the process's first, which does not end with a goroutine locked to it)"
			}
			s["thread "+task+" "+at] = fmt.Sprintf("%s in %s, away from %s", who, at, home)
		}
	}
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}
