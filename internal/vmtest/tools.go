package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// witnesses are the programs that tests read results back with. The first ones
// have to be there, the others come along from a machine that has them.
var (
	witnesses     = []string{"ip", "nft", "bridge", "tc", "ss", "sh"}
	moreWitnesses = []string{"conntrack", "ethtool", "ping", "tcpdump", "wg"}
)

// never are witnesses that a guest does not get: they load plug-ins of their own.
var never = []string{"iptables", "ip6tables", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"}

// absent are the witnesses that guests of this machine do not have.
func absent() []string {
	missing := slices.Clone(never)
	for _, name := range moreWitnesses {
		if _, err := find(name); err != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

// addTools adds the machine's witnesses with their libraries and data, and
// busybox for all other programs.
func addTools(ctx context.Context, t tree) error {
	for _, name := range witnesses {
		if err := addProgram(ctx, t, name); err != nil {
			return err
		}
	}
	for _, name := range moreWitnesses {
		if _, err := find(name); err != nil {
			continue
		}
		if err := addProgram(ctx, t, name); err != nil {
			return err
		}
	}
	for _, name := range []string{"/etc/iproute2", "/usr/share/iproute2"} {
		if err := t.addDir(name, name, nil); err != nil {
			return err
		}
	}
	for _, name := range []string{"/etc/protocols", "/etc/services", "/etc/ethertypes"} {
		if _, err := os.Stat(name); err == nil {
			t.file(name, name)
		}
	}
	return addBusybox(ctx, t)
}

// addProgram adds a program and the libraries that its loader would load.
func addProgram(ctx context.Context, t tree, name string) error {
	path, err := find(name)
	if err != nil {
		return err
	}
	loader, err := interpreter(path)
	if err != nil {
		return err
	}
	t.program("/usr/sbin/"+name, path)
	if loader == "" {
		return nil
	}
	t.program(loader, loader)
	list, err := output(ctx, "", loader, "--list", path)
	if err != nil {
		return fmt.Errorf("the libraries of %s: %w", path, err)
	}
	libraries, err := parseLibraries(list)
	if err != nil {
		return fmt.Errorf("the libraries of %s: %w", path, err)
	}
	for _, l := range libraries {
		t.program(l, l)
	}
	return nil
}

// parseLibraries reads what the loader lists, which is what ldd prints:
//
//	linux-vdso.so.1 (0x00007ffd0b1f2000)
//	libmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f0d1e8a6000)
//	/lib64/ld-linux-x86-64.so.2 (0x00007f0d1ea5f000)
func parseLibraries(list string) ([]string, error) {
	var paths []string
	for line := range strings.Lines(list) {
		name, path, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if !ok {
			continue
		}
		path, _, _ = strings.Cut(path, " (")
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%s: %s", name, path)
		}
		paths = append(paths, filepath.Clean(path))
	}
	return paths, nil
}

// interpreter returns the loader that a program names, "" for a static one.
func interpreter(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			return string(bytes.TrimRight(b, "\x00")), err
		}
	}
	return "", nil
}

// addBusybox adds busybox under the names of all it can do, but for what is
// there already.
func addBusybox(ctx context.Context, t tree) error {
	path, err := find("busybox")
	if err != nil {
		return err
	}
	loader, err := interpreter(path)
	if err != nil {
		return err
	}
	if loader != "" {
		return errors.New("the machine's busybox needs libraries: Debian's package busybox-static has one that does not")
	}
	applets, err := output(ctx, "", path, "--list")
	if err != nil {
		return err
	}
	t.program("/usr/bin/busybox", path)
	for _, name := range strings.Fields(applets) {
		if name != "busybox" && !t.has("/usr/sbin/"+name) {
			t.symlink("/usr/bin/"+name, "busybox")
		}
	}
	// The shell's own idea of ip comes before the witness.
	t.symlink("/usr/bin/sh", "/usr/sbin/sh")
	t.symlink("/usr/sbin/modprobe", "/usr/bin/busybox")
	t.symlink("/bin", "/usr/bin")
	t.symlink("/sbin", "/usr/sbin") // where the kernel looks for modprobe
	return nil
}
