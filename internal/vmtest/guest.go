package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
)

// jobTimeout is how long the tests of one package may take; with it, the test
// binary itself shows where it hangs.
const jobTimeout = 30 * time.Minute

// makeJobs returns what a guest runs: each package's tests, as root, as a normal
// user, or both.
func makeJobs(packages []testPackage, o options) []protocol.Job {
	var jobs []protocol.Job
	for _, p := range packages {
		job := protocol.Job{
			Name: p.name,
			Dir:  path.Join("/src", p.name),
			Args: []string{
				"/tests/" + filepath.Base(p.binary), "-test.v=test2json", "-test.short", "-test.paniconexit0",
				"-test.timeout=" + jobTimeout.String(), "-test.run=" + o.run, "-test.bench=" + o.bench,
			},
			Env: []string{
				"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "TMPDIR=/tmp", "LC_ALL=C",
				"BOXWIRE_REQUIRE_WITNESS=1", "BOXWIRE_REQUIRE_NETNS=1", "BOXWIRE_KERNEL_MODULES=1", "BOXWIRE_DISPOSABLE=1",
				"BOXWIRE_ABSENT=" + strings.Join(absent(), ","),
			},
		}
		if o.root {
			jobs = append(jobs, job)
		}
		if o.user {
			job.Name, job.User = job.Name+" (user)", true
			jobs = append(jobs, job)
		}
	}
	return jobs
}

// commonTree is what all guests have: an init, the witnesses, the tests, and the
// repository, because tests read their package's files.
func commonTree(ctx context.Context, root string, packages []testPackage, jobs []protocol.Job, tmp string) (tree, error) {
	t := tree{}
	for _, dir := range []string{"/dev", "/proc", "/root", "/run", "/sys", "/tmp", "/var/tmp"} {
		t.dir(dir)
	}
	t.symlink("/var/run", "/run")
	t.write("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\ntcpdump:x:100:100:tcpdump:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	t.write("/etc/group", []byte("root:x:0:\ntcpdump:x:100:\nnogroup:x:65534:\n"))
	t.write("/etc/hosts", []byte("127.0.0.1 localhost\n::1 localhost\n"))
	t.write("/etc/nsswitch.conf", []byte("passwd: files\ngroup: files\nhosts: files\n"))
	t.write("/etc/resolv.conf", nil)

	init := filepath.Join(tmp, "init")
	if _, err := goBuild(ctx, filepath.Join(root, "internal/vmtest"), "build", "-ldflags=-s -w", "-o", init, "./guest"); err != nil {
		return nil, fmt.Errorf("building the guest's init: %w", err)
	}
	t.program("/init", init)
	if err := addTools(ctx, t); err != nil {
		return nil, err
	}
	for _, p := range packages {
		t.program("/tests/"+filepath.Base(p.binary), p.binary)
	}
	err := t.addDir("/src", root, func(name string, d fs.DirEntry) bool {
		return d.IsDir() && name != "." && strings.HasPrefix(d.Name(), ".")
	})
	if err != nil {
		return nil, err
	}
	work, err := json.Marshal(protocol.Work{Modules: modules, Jobs: jobs})
	if err != nil {
		return nil, err
	}
	t.write(protocol.JobsPath, work)
	return t, nil
}

// writeInitramfs writes what all guests have, and a kernel's modules.
func writeInitramfs(file string, common tree, k kernel) error {
	modules := tree{}
	if err := modules.addDir("/lib/modules", filepath.Join(k.dir, "lib/modules"), nil); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := writeTo(w, common, modules); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
