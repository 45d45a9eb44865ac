package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// keyring is what Debian's archives are signed with, from the package
// debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// apt reads another suite of Debian than the machine's. It has lists and caches
// of its own and installs nothing, so that it needs no root.
type apt struct {
	dir     string // holds all it writes
	options []string
}

// openApt fetches the package lists of a suite into dir.
func openApt(ctx context.Context, dir, suite string) (*apt, error) {
	archive, err := archive(ctx)
	if err != nil {
		return nil, err
	}
	a := &apt{dir: dir, options: []string{
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(dir, "sources.list"),
		"-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"),
		"-o", "Dir::State::status=" + os.DevNull, // nothing is installed, as far as this goes
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "Dir::Cache::pkgcache=",
		"-o", "Dir::Cache::srcpkgcache=",
		"-o", "APT::Architecture=amd64",
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "APT::Sandbox::User=", // its user cannot enter a cache directory; signatures are checked all the same
		"-o", "APT::Update::Error-Mode=any", // a list that was not fetched is an error, not a warning
		"-q",
	}}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	source := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, archive, suite)
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(source), 0o644); err != nil {
		return nil, err
	}
	if _, err := a.run(ctx, "apt-get", "update"); err != nil {
		return nil, fmt.Errorf("reading Debian's %s, is there a network? %w", suite, err)
	}
	return a, nil
}

// kernelPackage are the packages that a kernel consists of: image in the older
// suites, binary and modules in the newer.
var kernelPackage = regexp.MustCompile(`\blinux-(?:image|binary|modules)-[0-9][^ ,|]*`)

// kernelPackages returns the packages behind linux-image-amd64, the suite's
// present kernel.
func (a *apt) kernelPackages(ctx context.Context) ([]string, error) {
	var found []string
	for next := []string{"linux-image-amd64"}; len(next) > 0; next = next[1:] {
		show, err := a.run(ctx, "apt-cache", "--no-all-versions", "show", next[0])
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(show) {
			if !strings.HasPrefix(line, "Depends:") {
				continue
			}
			for _, p := range kernelPackage.FindAllString(line, -1) {
				if !slices.Contains(found, p) {
					found = append(found, p)
					next = append(next, p)
				}
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.New("linux-image-amd64 depends on no kernel")
	}
	return found, nil
}

// download fetches packages and returns their files. Their sums, which the
// signed lists name, are right, or it is an error.
func (a *apt) download(ctx context.Context, packages []string) ([]string, error) {
	if _, err := a.run(ctx, "apt-get", append([]string{"download"}, packages...)...); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(a.dir, "*.deb"))
	if err == nil && len(files) != len(packages) {
		err = fmt.Errorf("asked for the packages %v and got %v", packages, files)
	}
	return files, err
}

func (a *apt) run(ctx context.Context, name string, args ...string) (string, error) {
	return output(ctx, a.dir, name, append(slices.Clone(a.options), args...)...)
}

// archive returns the address of the Debian archive that the machine itself
// takes its packages from.
func archive(ctx context.Context) (string, error) {
	sources, err := output(ctx, "", "apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	address := pickArchive(sources, string(release))
	if address == "" {
		return "", errors.New("the machine's package sources name no Debian archive to take kernels from")
	}
	return address, nil
}

// pickArchive finds Debian's own archive among the machine's sources, not that of
// its security updates or of a third party: the one whose main component has the
// machine's release.
func pickArchive(sources, osRelease string) string {
	if !regexp.MustCompile(`(?m)^ID="?debian"?$`).MatchString(osRelease) {
		return ""
	}
	suites := []string{"stable", "testing", "unstable", "sid"}
	if m := regexp.MustCompile(`(?m)^VERSION_CODENAME="?(\w+)"?$`).FindStringSubmatch(osRelease); m != nil {
		suites = append(suites, m[1])
	}
	for line := range strings.Lines(sources) {
		f := strings.Fields(line)
		if len(f) == 3 && f[1] == "main" && slices.Contains(suites, f[0]) {
			return f[2]
		}
	}
	return ""
}

// output runs a program in a directory and returns what it prints. Its error has
// what the program wrote to standard error.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	path, err := find(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// debianPackage are the packages that bring the programs that are run here.
var debianPackage = map[string]string{
	"apt-get":            "apt",
	"apt-cache":          "apt",
	"dpkg-deb":           "dpkg",
	"depmod":             "kmod",
	"qemu-system-x86_64": "qemu-system-x86",
	"busybox":            "busybox-static",
	"ip":                 "iproute2",
	"nft":                "nftables",
}

// find finds a program, also where a normal user's PATH does not lead.
func find(name string) (string, error) {
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	if p := debianPackage[name]; p != "" {
		return "", fmt.Errorf("%s is not installed: it comes with Debian's package %s", name, p)
	}
	return "", fmt.Errorf("%s is not installed", name)
}
