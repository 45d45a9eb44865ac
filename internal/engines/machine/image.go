package machine

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"testing"
)

// ImageTar makes a tar archive of a small root in the machine and returns its path: /bin/probe, and /bin/busybox with
// /bin/sh where the package busybox-static is installed. `docker import` and `podman import` make an
// image of it.
func (m *Machine) ImageTar(t testing.TB) string {
	t.Helper()
	probe, err := os.ReadFile(BuildProgram(t, "./internal/engines/probe"))
	if err != nil {
		t.Fatalf("machine: %v", err)
	}
	var b bytes.Buffer
	w := imageWriter{w: tar.NewWriter(&b)}
	for _, dir := range []string{"bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"} {
		w.add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	w.add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/:/bin/sh\n"))
	w.add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/probe", Mode: 0o755}, probe)
	if busybox, err := os.ReadFile(m.Path("/usr/bin/busybox")); err == nil {
		w.add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, busybox)
		w.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/sh", Linkname: "busybox"}, nil)
	}
	if err := w.close(); err != nil {
		t.Fatalf("machine: an image: %v", err)
	}
	const path = "/tmp/boxwire-image.tar"
	m.WriteFile(t, path, b.String(), 0o644)
	return path
}

// imageWriter writes an archive and keeps the first error.
type imageWriter struct {
	w   *tar.Writer
	err error
}

func (w *imageWriter) add(h tar.Header, body []byte) {
	h.Size = int64(len(body))
	if w.err == nil {
		w.err = w.w.WriteHeader(&h)
	}
	if w.err == nil {
		_, w.err = w.w.Write(body)
	}
}

func (w *imageWriter) close() error {
	if err := w.w.Close(); w.err == nil && err != nil {
		w.err = fmt.Errorf("closing: %w", err)
	}
	return w.err
}
