package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
)

// fakes puts programs of the test's own before the machine's.
func fakes(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// aptGet is an apt-get whose archive is the directory $ARCHIVE. DOWNLOAD is what it
// does for a download.
const aptGet = `
case "$*" in
*indextargets*) . /etc/os-release; echo "$VERSION_CODENAME main file:/nowhere" ;;
*update*) ;;
*download*) DOWNLOAD ;;
esac
`

const aptCache = `
for last; do :; done
case $last in
linux-image-amd64) echo "Depends: linux-base-amd64 (= 1), linux-image-6.1.0-9-amd64 (= 1)" ;;
linux-image-6.1.0-9-amd64) echo "Depends: dracut | initramfs-tools, linux-binary-6.1.0-9-amd64 (= 1), linux-modules-6.1.0-9-amd64" ;;
*) echo "Depends: libc6" ;;
esac
`

// debian makes the packages of a kernel.
func debian(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip(err)
	}
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("packed module"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	archive := t.TempDir()
	modules := "usr/lib/modules/6.1.0-9-amd64/"
	for name, files := range map[string]map[string]string{
		"linux-image-6.1.0-9-amd64":  {"usr/share/doc/x": "x"},
		"linux-binary-6.1.0-9-amd64": {modules + "vmlinuz": "image"},
		"linux-modules-6.1.0-9-amd64": {
			modules + "modules.order":                               "order",
			modules + "kernel/net/plain.ko":                         "plain module",
			modules + "kernel/net/deep/er/packed.ko.xz":             packed.String(),
			modules + "kernel/drivers/net/dummy.ko":                 "dummy",
			modules + "kernel/drivers/net/vxlan/vxlan.ko":           "vxlan",
			modules + "kernel/drivers/net/ethernet/intel/e1000e.ko": "hardware",
			modules + "kernel/sound/core/snd.ko":                    "noise",
		},
	} {
		tree := t.TempDir()
		files["DEBIAN/control"] = "Package: " + name + "\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@example.com>\nDescription: x\n"
		for path, content := range files {
			path = filepath.Join(tree, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, filepath.Join(archive, name+".deb")).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return archive
}

// empty fails the test if there is anything in the directory.
func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("left in the cache: %s", e.Name())
	}
}

func TestKernelIsFetchedOnceAndWhole(t *testing.T) {
	if !onDebian() {
		t.Skip("not a Debian")
	}
	archive, cache := debian(t), t.TempDir()
	dir := fakes(t, map[string]string{
		"apt-get":   strings.ReplaceAll(aptGet, "DOWNLOAD", "cp "+archive+"/*.deb ."),
		"apt-cache": aptCache,
		"depmod":    `touch "$2/lib/modules/$3/modules.dep"`,
	})
	k, err := obtain(t.Context(), cache, "6.1")
	if err != nil {
		t.Fatal(err)
	}
	if k.release != "6.1.0-9-amd64" {
		t.Errorf("release %s", k.release)
	}
	for name, want := range map[string]string{
		"vmlinuz":                                                     "image",
		"lib/modules/6.1.0-9-amd64/modules.dep":                       "",
		"lib/modules/6.1.0-9-amd64/modules.order":                     "order",
		"lib/modules/6.1.0-9-amd64/kernel/net/plain.ko":               "plain module",
		"lib/modules/6.1.0-9-amd64/kernel/net/deep/er/packed.ko":      "packed module",
		"lib/modules/6.1.0-9-amd64/kernel/drivers/net/dummy.ko":       "dummy",
		"lib/modules/6.1.0-9-amd64/kernel/drivers/net/vxlan/vxlan.ko": "vxlan",
	} {
		if b, err := os.ReadFile(filepath.Join(k.dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", name, b, err, want)
		}
	}
	for _, name := range []string{"sound", "drivers/net/ethernet"} {
		if _, err := os.Stat(filepath.Join(k.dir, "lib/modules/6.1.0-9-amd64/kernel", name)); err == nil {
			t.Errorf("%s came along", name)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(cache, ".*")); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
	// From now on no network is needed.
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if again, err := obtain(t.Context(), cache, "6.1"); err != nil || again != k {
		t.Errorf("the second time: %+v, %v", again, err)
	}
}

func TestKernelThatCannotBeFetchedIsNotThere(t *testing.T) {
	if !onDebian() {
		t.Skip("not a Debian")
	}
	archive := debian(t)
	half := "head -c 500 " + archive + "/linux-modules-6.1.0-9-amd64.deb > linux-modules-6.1.0-9-amd64.deb;"
	for _, c := range []struct{ name, kernel, aptGet, want string }{
		{"no network", "6.1", strings.ReplaceAll(aptGet, "*update*) ;;", "*update*) echo could not resolve it >&2; exit 100 ;;"), "is there a network?"},
		{"the download breaks", "6.1", strings.ReplaceAll(aptGet, "DOWNLOAD", half+"echo connection lost >&2; exit 100"), "connection lost"},
		{"a package is missing", "6.1", strings.ReplaceAll(aptGet, "DOWNLOAD", "cp "+archive+"/linux-b*.deb ."), "asked for the packages"},
		{"a package is cut short", "6.1", strings.ReplaceAll(aptGet, "DOWNLOAD", "cp "+archive+"/*.deb .;"+half), "dpkg-deb"},
		{"another kernel", "5.10", strings.ReplaceAll(aptGet, "DOWNLOAD", "cp "+archive+"/*.deb ."), "bullseye brings 6.1.0-9-amd64"},
		{"no archive", "6.1", "echo", "no Debian archive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := t.TempDir()
			fakes(t, map[string]string{"apt-get": c.aptGet, "apt-cache": aptCache, "depmod": ""})
			k, err := obtain(t.Context(), cache, c.kernel)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("obtain: %+v, %v, want %q", k, err, c.want)
			}
			empty(t, cache)
		})
	}
}

func TestInterruptedFetchLeavesNothing(t *testing.T) {
	if !onDebian() {
		t.Skip("not a Debian")
	}
	archive, cache := debian(t), t.TempDir()
	begun := filepath.Join(t.TempDir(), "begun")
	fakes(t, map[string]string{
		"apt-get":   strings.ReplaceAll(aptGet, "DOWNLOAD", "cp "+archive+"/*.deb .; touch "+begun+"; exec sleep 60"),
		"apt-cache": aptCache,
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if _, err := os.Stat(begun); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if k, err := obtain(ctx, cache, "6.1"); err == nil {
		t.Errorf("obtain: %+v", k)
	}
	empty(t, cache)
}

func TestUnknownPackingIsRefused(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "kernel/net"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "kernel/net/x.ko.zst"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := copyModules(from, t.TempDir()); err == nil || !strings.Contains(err.Error(), "x.ko.zst") {
		t.Errorf("copyModules: %v", err)
	}
}

func onDebian() bool {
	b, _ := os.ReadFile("/etc/os-release")
	return pickArchive("stable main x\n", string(b)) != ""
}
