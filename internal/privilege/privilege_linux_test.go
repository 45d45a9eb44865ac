package privilege_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/privilege"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func verbs() []verb { return slices.Concat(netnsVerbs, routeVerbs, natVerbs, linkVerbs) }

// user is what a process may do.
type user struct {
	name string
	caps caps // nil: all
	uid  int  // 0 or nobody
	ns   bool // in a user, network and mount namespace of its own
}

const nobody = 65534

// users are those whom the verbs are called by.
var users = []user{
	{name: "root"},
	{name: "CAP_NET_ADMIN", caps: caps{privilege.NetAdmin}, uid: nobody},
	{name: "CAP_NET_ADMIN of root", caps: caps{privilege.NetAdmin}},
	{name: "CAP_NET_ADMIN and CAP_SYS_ADMIN", caps: caps{privilege.NetAdmin, privilege.SysAdmin}},
	{name: "a normal user", caps: caps{}, uid: nobody},
	{name: "root of a user namespace", ns: true},
}

func (u user) has(c privilege.Cap) bool { return u.caps == nil || slices.Contains(u.caps, c) }

// lacks returns those of the capabilities that the user has not got.
func (u user) lacks(needs caps) (missing caps) {
	for _, c := range needs {
		if !u.has(c) {
			missing = append(missing, c)
		}
	}
	return missing
}

// outcome is what became of a verb.
type outcome struct {
	Verb, Err      string // "": it worked
	Denied, Absent bool   // os.ErrPermission, errors.ErrUnsupported
}

// Every verb, called by each user, works or says which capability it lacks. The
// table is complete: TestTheTableHasEveryVerb.
func TestWhatEachVerbTakes(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	for i, u := range users {
		t.Run(u.name, func(t *testing.T) {
			t.Parallel()
			if u.uid != 0 && !mapped(t, u.uid) {
				t.Skip("this user namespace has one user only")
			}
			name := fmt.Sprintf("privilege%d", i)
			defer unname(context.WithoutCancel(t.Context()), name)
			own := netnstest.New(t)
			if !u.ns {
				if err := prepare(t.Context(), own, name); err != nil {
					t.Fatal(err)
				}
			}
			got := u.run(t, own, netnstest.New(t), name)
			for _, v := range verbs() {
				t.Run(v.name, func(t *testing.T) { v.check(t, u, got[v.name]) })
			}
		})
	}
}

func (v verb) check(t *testing.T, u user, got outcome) {
	if unix.Access(v.opens, unix.R_OK|unix.W_OK) == unix.EACCES && got.Denied {
		return // the machine keeps the file from this test's own user, too
	}
	missing := u.lacks(v.needs)
	if fi, err := os.Stat(v.opens); err == nil && u.uid != 0 && fi.Mode().Perm()&6 != 6 {
		missing = append(missing, privilege.DACOverride)
	}
	if len(missing) == 0 && v.machine && got.Denied {
		missing = v.needs
	}
	switch {
	case got.Verb == "":
		t.Error("it was not called")
	case got.Absent:
		since := v.since
		if since == (version{}) {
			since = version{5, 10}
		}
		testutil.NeedKernel(t, since.major, since.minor, v.name, fmt.Errorf("%s: %w", got.Err, errors.ErrUnsupported))
	case len(missing) == 0 && got.Denied && v.inUserNS != version{}:
		testutil.NeedKernel(t, v.inUserNS.major, v.inUserNS.minor, v.name+" in a user namespace", errors.New(got.Err))
	case len(missing) == 0:
		if got.Err != "" {
			t.Errorf("%s, want that it works", got.Err)
		}
	case !got.Denied || !slices.ContainsFunc(missing, func(c privilege.Cap) bool { return strings.Contains(got.Err, c.String()) }):
		t.Errorf("%q, want os.ErrPermission and one of %v", got.Err, missing)
	}
}

// mapped reports whether a user id is one in this user namespace.
func mapped(t *testing.T, uid int) bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var inside, outside, count int
		if n, _ := fmt.Sscan(line, &inside, &outside, &count); n == 3 && uid >= inside && uid-inside < count {
			return true
		}
	}
	return false
}

const (
	childEnv = "BOXWIRE_TEST_CHILD"
	nameEnv  = "BOXWIRE_TEST_NAME"
)

// run calls every verb in a process that the user owns.
func (u user) run(t *testing.T, own, other *netns.NS, name string) map[string]outcome {
	t.Helper()
	results, err := os.Create(filepath.Join(t.TempDir(), "results"))
	if err != nil {
		t.Fatal(err)
	}
	defer results.Close()
	var elsewhere *os.File
	err = other.WithFd(func(fd int) error {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		elsewhere = os.NewFile(uintptr(dup), "net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	attr := &os.ProcAttr{
		Env:   append(os.Environ(), childEnv+"="+u.name, nameEnv+"="+name, "BOXWIRE_NETNSTEST_LEAKS=allow"),
		Files: []*os.File{nil, log, log, results, elsewhere},
		Sys:   &syscall.SysProcAttr{},
	}
	if u.uid != 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.uid)}
		for _, c := range u.caps {
			attr.Sys.AmbientCaps = append(attr.Sys.AmbientCaps, uintptr(c))
		}
	}
	if u.ns {
		one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		attr.Sys.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS
		attr.Sys.UidMappings, attr.Sys.GidMappings = one, one
	}
	args := []string{"/proc/self/exe", "-test.run=^TestChildCallsEveryVerb$", "-test.v"}
	// The thread that starts the process loses what the process shall not have, and
	// ends then: Do lets none go on that has a working directory of its own.
	p, err := netns.Do(t.Context(), own, func(context.Context) (*os.Process, error) {
		if u.uid == 0 && u.caps != nil {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return nil, err
			}
			for c := range unix.CAP_LAST_CAP + 1 {
				if !u.has(privilege.Cap(c)) {
					if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && err != unix.EINVAL {
						return nil, err
					}
				}
			}
		}
		return os.StartProcess(args[0], args, attr)
	})
	if err != nil {
		t.Fatal(err)
	}
	state, err := p.Wait()
	text, _ := os.ReadFile(log.Name())
	if err != nil || !state.Success() {
		t.Fatalf("%v, %v\n%s", state, err, text)
	}
	b, err := os.ReadFile(results.Name())
	var list []outcome
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	got := make(map[string]outcome)
	for _, o := range list {
		got[o.Verb] = o
	}
	return got
}

// TestChildCallsEveryVerb runs in the process of a user.
func TestChildCallsEveryVerb(t *testing.T) {
	u := slices.IndexFunc(users, func(u user) bool { return u.name == os.Getenv(childEnv) })
	if u < 0 {
		t.Skip("runs only in a process that another test starts")
	}
	var p place
	var err error
	if p.own, err = netns.Current(); err != nil {
		t.Fatal(err)
	}
	defer p.own.Close()
	if p.other, err = netns.OpenFd(4); err != nil {
		t.Fatal(err)
	}
	defer p.other.Close()
	p.name = os.Getenv(nameEnv)
	if users[u].ns {
		// One that belongs to this user namespace, and /run/netns of its own.
		p.other.Close()
		if p.other, err = netns.New(t.Context()); err != nil {
			t.Fatal(err)
		}
		lo, err := netns.Create(t.Context(), p.name)
		if err != nil {
			t.Fatal(err)
		}
		defer lo.Delete(t.Context())
		if err := prepare(t.Context(), p.own, p.name); err != nil {
			t.Fatal(err)
		}
		defer unname(t.Context(), p.name)
	}
	var got []outcome
	for _, v := range verbs() {
		o := outcome{Verb: v.name}
		if err := v.call(t.Context(), p); err != nil {
			o.Err = err.Error()
			o.Denied, o.Absent = errors.Is(err, os.ErrPermission), errors.Is(err, errors.ErrUnsupported)
		}
		got = append(got, o)
	}
	b, err := json.Marshal(got)
	if err == nil {
		_, err = os.NewFile(3, "results").Write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The table has every exported function and method that takes a context; one of a
// Dir goes with the function of its name.
func TestTheTableHasEveryVerb(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	for _, v := range verbs() {
		name, _, _ := strings.Cut(v.name, " ")
		have[name] = true
	}
	for _, pkg := range []string{"netns", "link", "route", "nat"} {
		files, err := filepath.Glob("../../" + pkg + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			t.Skipf("the sources of %s are not here", pkg)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || !fn.Name.IsExported() || !takesContext(fn) {
					continue
				}
				if r := receiver(fn); r != "" && !ast.IsExported(r) {
					continue
				}
				name := pkg + "." + receiver(fn) + fn.Name.Name
				if !have[strings.Replace(name, "netns.Dir.", "netns.", 1)] {
					t.Errorf("%s is not in the table", name)
				}
			}
		}
	}
}

func takesContext(fn *ast.FuncDecl) bool {
	for _, p := range fn.Type.Params.List {
		if s, ok := p.Type.(*ast.SelectorExpr); ok && s.Sel.Name == "Context" {
			return true
		}
	}
	return false
}

// receiver returns the type of a method with a dot behind it, "" for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	switch r := fn.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		return r.X.(*ast.Ident).Name + "."
	case *ast.Ident:
		return r.Name + "."
	}
	return "?."
}
