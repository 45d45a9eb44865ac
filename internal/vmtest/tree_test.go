package main

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
)

// sample is a tree with a node of each sort, whose file comes from dir.
func sample(t *testing.T, dir string) tree {
	t.Helper()
	from := filepath.Join(dir, "program")
	if err := os.WriteFile(from, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	made := tree{}
	made.program("/usr/sbin/program", from)
	made.write("/etc/passwd", []byte("root"))
	made.write("/empty", nil)
	made.symlink("/bin/sh", "/usr/sbin/program")
	made.dir("/proc")
	return made
}

func TestInitramfsHoldsTheTree(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	second := tree{}
	second.write("/etc/group", []byte("nogroup"))
	if err := writeTo(&b, sample(t, t.TempDir()), second); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"drwxr-xr-x bin", "Lrwxrwxrwx bin/sh -> /usr/sbin/program", "-rw-r--r-- empty ", "drwxr-xr-x etc",
		"-rw-r--r-- etc/passwd root", "drwxr-xr-x proc", "drwxr-xr-x usr", "drwxr-xr-x usr/sbin",
		"-rwxr-xr-x usr/sbin/program a program", "drwxr-xr-x etc", "-rw-r--r-- etc/group nogroup",
	}
	var got []string
	for r := cpio.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		mode := h.FileInfo().Mode()
		line := mode.String() + " " + h.Name
		switch {
		case h.Linkname != "":
			line += " -> " + h.Linkname
		case mode.IsRegular():
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			line += " " + string(content)
		}
		got = append(got, line)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestInitramfsIsUnpackedByAnother(t *testing.T) {
	t.Parallel()
	busybox, err := find("busybox")
	if err != nil {
		t.Skip(err)
	}
	var b bytes.Buffer
	if err := writeTo(&b, sample(t, t.TempDir())); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	cmd := exec.Command(busybox, "cpio", "-id")
	cmd.Dir, cmd.Stdin = to, &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for name, want := range map[string]string{"usr/sbin/program": "a program", "etc/passwd": "root", "empty": ""} {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if got, err := os.Readlink(filepath.Join(to, "bin/sh")); err != nil || got != "/usr/sbin/program" {
		t.Errorf("bin/sh: %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(to, "usr/sbin/program")); err != nil || info.Mode() != 0o755 {
		t.Errorf("usr/sbin/program: %v, %v", info, err)
	}
}

func TestFolderComesAlongButForWhatIsSkipped(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	for _, name := range []string{"a.go", "testdata/fuzz/x", ".git/config", "run.sh"} {
		path := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(from, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.go", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(from, "dangling")); err != nil {
		t.Fatal(err)
	}
	made := tree{}
	if err := made.addDir("/src", from, func(name string, d fs.DirEntry) bool { return name == ".git" }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/src", "/src/a.go", "/src/link", "/src/testdata/fuzz/x"} {
		if !made.has(name) {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range []string{"/src/.git", "/src/.git/config", "/src/dangling"} {
		if made.has(name) {
			t.Errorf("%s came along", name)
		}
	}
	if made["/src/run.sh"].mode != 0o755 {
		t.Errorf("run.sh: %v", made["/src/run.sh"].mode)
	}
	if err := made.addDir("/x", filepath.Join(from, "missing"), nil); err != nil {
		t.Errorf("a missing directory: %v", err)
	}
}
