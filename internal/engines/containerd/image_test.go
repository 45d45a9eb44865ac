package containerd

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// The images of the scenes, by the names that containerd, critest and the scenes want.
const (
	pauseImage    = "registry.k8s.io/pause:3.10"
	busyboxImage  = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
	webImage      = "registry.k8s.io/e2e-test-images/nginx:1.14-2"
	otherWebImage = "registry.k8s.io/e2e-test-images/httpd:2.4.39-4"
	hostWebImage  = "gcr.io/k8s-staging-cri-tools/hostnet-nginx-" + runtime.GOARCH + ":latest"
	probeImage    = "boxwire.test/probe:latest"
)

// image is one image of an archive.
type image struct {
	name  string
	files map[string]string // by path: the content, or "-> " and where a link leads
	cmd   []string
}

// images are all of them, made of a busybox with its applets and of a probe.
func images(busybox, probe string, applets []string) []image {
	root := func(more map[string]string) map[string]string {
		files := map[string]string{"bin/busybox": busybox, "etc/passwd": "root:x:0:0:root:/:/bin/sh\n", "tmp/keep": "", "var/lib/keep": ""}
		for _, name := range applets {
			if name != "busybox" && !strings.Contains(name, "/") {
				files["bin/"+name] = "-> busybox"
			}
		}
		for name, content := range more {
			files[name] = content
		}
		return files
	}
	page := map[string]string{"www/index.html": "hello\n"}
	return []image{
		{pauseImage, root(nil), []string{"/bin/sleep", "1000000"}},
		{busyboxImage, root(nil), []string{"/bin/sh"}},
		{webImage, root(page), []string{"/bin/httpd", "-f", "-p", "80", "-h", "/www"}},
		{otherWebImage, root(page), []string{"/bin/sh", "-c", "echo httpd; exec httpd -f -p 80 -h /www"}}, // critest looks for its name in the log
		{hostWebImage, root(page), []string{"/bin/httpd", "-f", "-p", "12003", "-h", "/www"}},
		{probeImage, map[string]string{"bin/probe": probe}, nil},
	}
}

// archive writes images in the format of `docker save`.
func archive(t *testing.T, all []image) []byte {
	t.Helper()
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var manifest []entry
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, i := range all {
		layer := i.layer(t)
		digest := fmt.Sprintf("%x", sha256.Sum256(layer))
		config, err := json.Marshal(map[string]any{
			"architecture": runtime.GOARCH, "os": "linux",
			"config": map[string]any{"Cmd": i.cmd, "Env": []string{"PATH=/bin"}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest}},
		})
		if err != nil {
			t.Fatal(err)
		}
		e := entry{fmt.Sprintf("%x.json", sha256.Sum256(config)), []string{i.name}, []string{digest + "/layer.tar"}}
		if !slices.ContainsFunc(manifest, func(other entry) bool { return other.Layers[0] == e.Layers[0] }) {
			addFile(t, w, e.Layers[0], string(layer))
		}
		addFile(t, w, e.Config, string(config))
		manifest = append(manifest, e)
	}
	list, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	addFile(t, w, "manifest.json", string(list))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// layer is the archive of an image's files.
func (i image) layer(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	dirs := map[string]bool{".": true}
	for _, name := range slices.Sorted(maps.Keys(i.files)) {
		addDirs(t, w, path.Dir(name), dirs)
		addFile(t, w, name, i.files[name])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// addDirs adds a directory and those above it, each once.
func addDirs(t *testing.T, w *tar.Writer, dir string, there map[string]bool) {
	t.Helper()
	if there[dir] {
		return
	}
	addDirs(t, w, path.Dir(dir), there)
	there[dir] = true
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
}

func addFile(t *testing.T, w *tar.Writer, name, content string) {
	t.Helper()
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}
	if to, ok := strings.CutPrefix(content, "-> "); ok {
		h, content = &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}, ""
	}
	err := w.WriteHeader(h)
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// importImages makes the images known to the engine.
func (e *engine) importImages(t *testing.T, p *programs) {
	t.Helper()
	var contents []string
	for _, file := range []string{e.m.Path("/usr/bin/busybox"), p.probe} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, string(b))
	}
	applets := strings.Fields(e.m.Run(t, "busybox", "--list"))
	e.m.WriteFile(t, "/tmp/images.tar", string(archive(t, images(contents[0], contents[1], applets))), 0o644)
	e.m.Run(t, "ctr", "-n", "k8s.io", "images", "import", "/tmp/images.tar")
}
