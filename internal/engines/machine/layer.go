package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cacheEnv names the directory of layers.
const cacheEnv = "BOXWIRE_ENGINES_CACHE"

// missingError is that packages could not be installed.
type missingError struct {
	packages []string
	err      error
}

// Error names the packages.
func (e *missingError) Error() string {
	return fmt.Sprintf("installing %s: %v", strings.Join(e.packages, ", "), e.err)
}

// Unwrap returns why.
func (e *missingError) Unwrap() error { return e.err }

// cacheDir is the directory of layers, made if it is not there.
func cacheDir() (string, error) {
	dir := os.Getenv(cacheEnv)
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w; %s names another directory", err, cacheEnv)
		}
		dir = filepath.Join(user, "boxwire-engines")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(dir, ",:\\") {
		return "", fmt.Errorf("%s: overlayfs takes no path with ',', ':' or '\\' (%s)", dir, cacheEnv)
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// installed sees to it that the layer of the request's packages is there, and keeps it from being
// removed as long as this process lives.
func (r *request) installed(w *watch) error {
	if len(r.Packages) == 0 {
		return nil
	}
	packages := slices.Compact(slices.Sorted(slices.Values(r.Packages)))
	base, key, err := layerKey(packages)
	if err != nil {
		return err
	}
	prune(r.Cache, base)
	layer := filepath.Join(r.Cache, base+"-"+key)
	lock, err := os.OpenFile(layer+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	// The descriptor stays open, and with it the lock. Those who use the layer share it.
	if err := w.flock(lock, unix.LOCK_SH); err != nil {
		return err
	}
	if _, err := os.Stat(layer); errors.Is(err, os.ErrNotExist) {
		if err := w.flock(lock, unix.LOCK_EX); err != nil {
			return err
		}
		if err := r.make(w, packages, layer); err != nil {
			return &missingError{packages, err}
		}
		if err := w.flock(lock, unix.LOCK_SH); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	r.Layer = layer
	return nil
}

// flock waits for a lock of a file as long as the test runs.
func (w *watch) flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
		// There is no wait for a lock and a channel at once.
		select {
		case <-w.ended:
			return errEnded
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// layerKey is what a layer depends on: the real machine's packages, and those of the layer.
func layerKey(packages []string) (base, key string, err error) {
	h := sha256.New()
	for _, path := range []string{"/var/lib/dpkg/status", "/etc/os-release"} {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", "", fmt.Errorf("this is no Debian: %w", err)
		}
		h.Write(b)
	}
	base = hex.EncodeToString(h.Sum(nil)[:6])
	sum := sha256.Sum256([]byte(strings.Join(packages, " ")))
	return base, hex.EncodeToString(sum[:6]), nil
}

// prune removes layers over an older state of the real machine that nobody uses.
func prune(cache, base string) {
	locks, _ := filepath.Glob(cache + "/*.lock")
	for _, path := range locks {
		if strings.HasPrefix(filepath.Base(path), base) {
			continue
		}
		lock, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			layer := strings.TrimSuffix(path, ".lock")
			if os.RemoveAll(layer+".part") == nil && os.RemoveAll(layer) == nil {
				os.Remove(path)
			}
		}
		lock.Close()
	}
}

// make installs the packages into a directory beside the layer and renames that.
func (r *request) make(w *watch, packages []string, layer string) error {
	if _, err := os.Stat(layer); err == nil { // another has made it meanwhile
		return nil
	}
	part := layer + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	cmd, err := child(roleInstaller, request{Packages: packages, Store: r.Store, Layer: part}, 0)
	if err != nil {
		return err
	}
	cmd.Stdout = os.Stderr
	if err := w.start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	if err := os.RemoveAll(part + "/.work"); err != nil {
		return err
	}
	return os.Rename(part, layer)
}

// install is the installer: the first process of namespaces whose root writes into a layer. It has the
// real machine's network.
func install() error {
	r, err := childRequest()
	if err != nil {
		return err
	}
	root := rootfs{root: r.Store + "/root", upper: r.Layer, work: r.Layer + "/.work"}
	if err := root.build(); err != nil {
		return err
	}
	if err := root.installable(r.Store + "/apt"); err != nil {
		return err
	}
	if err := root.enter(); err != nil {
		return err
	}
	if err := apt("install", r.Packages); err != nil {
		// The lists are of the real machine, and may be too old.
		fmt.Fprintln(os.Stderr, "apt-get install:", err)
		if uerr := apt("update", nil); uerr != nil {
			fmt.Fprintln(os.Stderr, "apt-get update:", uerr)
		}
		err = apt("install", r.Packages)
		if err != nil {
			return fmt.Errorf("apt-get install: %w", err)
		}
	}
	return nil
}

// installable lets apt reach its mirrors, keeps what it downloads out of the layer, and keeps packages
// from starting anything.
func (r rootfs) installable(store string) error {
	if b, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		if err := r.write("etc/resolv.conf", string(b), 0o644); err != nil {
			return err
		}
	}
	if err := r.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755); err != nil {
		return err
	}
	const lists = "/var/lib/apt/lists"
	upper, work := store+"/upper", store+"/work"
	for _, dir := range []string{upper, work, r.root + lists, r.root + "/var/cache/apt"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount("overlay", r.root+lists, "overlay", 0, "lowerdir="+lists+",upperdir="+upper+",workdir="+work); err != nil {
		return err
	}
	return mount("tmpfs", r.root+"/var/cache/apt", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
}

// apt runs apt-get.
func apt(verb string, packages []string) error {
	args := []string{"-q", "-y", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "-o", "DPkg::Use-Pty=0",
		"-o", "Dpkg::Options::=--force-unsafe-io", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"}
	args = append(append(args, verb), packages...)
	if verb == "install" {
		args = append(args, "--no-install-recommends")
	}
	cmd := exec.Command("/usr/bin/apt-get", args...)
	cmd.Env = append(environ(), "DEBIAN_FRONTEND=noninteractive")
	for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
