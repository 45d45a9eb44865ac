package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ulikunitz/xz"
)

// obtain returns a kernel, from the cache or else from Debian.
func obtain(ctx context.Context, cache, name string) (kernel, error) {
	if k, err := cached(cache, name); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, err
	}
	// Everything is made under another name, which no run looks at.
	tmp, err := os.MkdirTemp(cache, "."+name+"-*")
	if err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(tmp)
	if err := fetch(ctx, tmp, name); err != nil {
		return kernel{}, fmt.Errorf("fetching kernel %s: %w", name, err)
	}
	err = os.Rename(filepath.Join(tmp, "ready"), filepath.Join(cache, name))
	if k, err := cached(cache, name); err == nil {
		return k, nil // this run's, or another's that was quicker
	}
	return kernel{}, errors.Join(err, fmt.Errorf("kernel %s was fetched and is not there", name))
}

// fetch prepares the directory dir.
func fetch(ctx context.Context, dir, name string) error {
	a, err := openApt(ctx, dir, suiteOf(name))
	if err != nil {
		return err
	}
	packages, err := a.kernelPackages(ctx)
	if err != nil {
		return err
	}
	files, err := a.download(ctx, packages)
	if err != nil {
		return err
	}
	tree := filepath.Join(dir, "tree")
	for _, f := range files {
		if _, err := output(ctx, dir, "dpkg-deb", "-x", f, tree); err != nil {
			return err
		}
	}
	release, err := arrange(tree, filepath.Join(dir, "ready"))
	if err != nil {
		return err
	}
	if !fits(release, name) {
		return fmt.Errorf("the suite %s brings %s", suiteOf(name), release)
	}
	_, err = output(ctx, dir, "depmod", "-b", filepath.Join(dir, "ready"), release)
	return err
}

// arrange takes from an unpacked kernel what guests need of it and returns its
// release.
func arrange(from, to string) (release string, err error) {
	one := func(patterns ...string) (string, error) {
		var found []string
		for _, p := range patterns {
			f, err := filepath.Glob(filepath.Join(from, p))
			if err != nil {
				return "", err
			}
			found = append(found, f...)
		}
		if len(found) != 1 {
			return "", fmt.Errorf("the packages hold %d of %s, want 1", len(found), strings.Join(patterns, ", "))
		}
		return found[0], nil
	}
	modules, err := one("lib/modules/*", "usr/lib/modules/*")
	if err != nil {
		return "", err
	}
	image, err := one("boot/vmlinuz-*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz")
	if err != nil {
		return "", err
	}
	release = filepath.Base(modules)
	if err := copyModules(modules, filepath.Join(to, "lib/modules", release)); err != nil {
		return "", err
	}
	return release, os.Rename(image, filepath.Join(to, "vmlinuz"))
}

// copyModules copies the modules that guests have, uncompressed, and the lists
// that depmod reads.
func copyModules(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if !wanted(name) {
			return nil
		}
		if base := strings.TrimSuffix(name, ".xz"); filepath.Ext(base) == ".ko" || strings.HasPrefix(name, "modules.") {
			return copyModule(path, filepath.Join(to, base))
		}
		return fmt.Errorf("%s: not a module, or packed in an unknown way", name)
	})
}

// wanted reports whether guests have a file of the modules' directory: networking,
// and what it depends on.
func wanted(name string) bool {
	name = filepath.ToSlash(name)
	if strings.HasPrefix(name, "modules.") {
		return true
	}
	for _, part := range []string{"arch/", "crypto/", "lib/", "net/", "drivers/net/"} {
		rest, ok := strings.CutPrefix(name, "kernel/"+part)
		if !ok {
			continue
		}
		if part != "drivers/net/" {
			return true
		}
		// Drivers without hardware are in the directory itself or in one of these.
		sub, _, deep := strings.Cut(rest, "/")
		switch sub {
		case "bonding", "ipvlan", "netdevsim", "ovpn", "team", "vxlan", "wireguard":
			return true
		}
		return !deep
	}
	return false
}

func copyModule(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if !strings.HasSuffix(from, ".xz") {
		if _, err := out.ReadFrom(in); err != nil {
			return err
		}
		return out.Close()
	}
	r, err := xz.NewReader(in)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if _, err := out.ReadFrom(r); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return out.Close()
}
