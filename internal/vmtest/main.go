// Vmtest runs the tests of the repository's packages on other kernels than the
// machine's: those of Debian's releases, in QEMU guests that need no hardware
// virtualisation and no root.
//
//	go -C internal/vmtest run . -kernel 5.10,7.2 -run 'Veth|Bridge' link route
//
// Packages are named relative to the repository's root; without any, all are
// run. Kernels are fetched from the Debian archive that the machine itself uses,
// and kept in the user's cache directory; to have a newer one of the same name,
// remove it there.
//
// With -ipv6 off the kernels boot without IPv6 (ipv6.disable=1), with -ipv6
// disabled no link has it until a program asks (ipv6.disable_ipv6=1), and -ipv6
// off,disabled does the one beside the other. A test that needs IPv6 is skipped
// then, and has to say so.
//
// With -bench, the guests run benchmarks, too. Their processors are emulated, so that
// only what is compared within one run means anything.
//
// With -again, what fails is run once more in a guest that has the machine for
// itself; the table says what passed only then.
//
// The tests run with -test.short and in an environment that says that all
// witnesses and all modules are there, so that a test is only skipped for what
// its kernel is too old for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	kernels  []string
	run      string
	bench    string
	ipv6     []string // of ipv6Modes
	root     bool
	user     bool
	verbose  bool
	again    bool
	kvm      bool
	parallel int
	timeout  time.Duration
	packages []string
}

// ipv6Modes are the values of -ipv6, with the parameter of the kernel that each
// stands for (Documentation/networking/ipv6.rst).
var ipv6Modes = map[string]string{
	"on":       "",
	"off":      "ipv6.disable=1",
	"disabled": "ipv6.disable_ipv6=1",
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := test(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("vmtest", flag.ContinueOnError)
	kernels := flags.String("kernel", "5.10,6.1,6.12,7.2", "the `kernels` to test on")
	flags.StringVar(&o.run, "run", "", "run only the tests that match `regexp`")
	flags.StringVar(&o.bench, "bench", "", "run the benchmarks that match `regexp`, too, and print what they report")
	modes := flags.String("ipv6", "on", "boot with IPv6 `on`, off or disabled, or with several of them")
	flags.BoolVar(&o.root, "root", true, "run the tests as root")
	flags.BoolVar(&o.user, "user", false, "run the tests as a normal user, too")
	flags.BoolVar(&o.again, "again", false, "run a test that failed once more, in a guest of its own, and say so if it passes then")
	flags.BoolVar(&o.verbose, "v", false, "show all that the tests print")
	flags.BoolVar(&o.kvm, "kvm", false, "use the processor's virtualisation, on a machine whose QEMU works with it")
	flags.IntVar(&o.parallel, "parallel", runtime.NumCPU(), "how many guests run side by side")
	// A guest that hangs is silent, which silence bounds.
	flags.DurationVar(&o.timeout, "timeout", 40*time.Minute, "how long a guest may take")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.packages = flags.Args()
	var err error
	if o.kernels, err = parseKernels(*kernels); err != nil {
		return o, err
	}
	o.ipv6 = strings.Split(*modes, ",")
	for _, mode := range o.ipv6 {
		if _, ok := ipv6Modes[mode]; !ok {
			return o, fmt.Errorf("-ipv6 %s: it can be on, off or disabled", mode)
		}
	}
	if o.parallel < 1 {
		return o, fmt.Errorf("-parallel %d: at least one guest has to run", o.parallel)
	}
	for name, pattern := range map[string]string{"run": o.run, "bench": o.bench} {
		for part := range strings.SplitSeq(pattern, "/") {
			if _, err := regexp.Compile(part); err != nil {
				return o, fmt.Errorf("-%s %s: %w", name, pattern, err)
			}
		}
	}
	return o, nil
}

// test runs the matrix and prints its table. An error means that not everything
// passed.
func test(ctx context.Context, o options) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return errors.New("the guests are made of this machine's programs, so that it has to be a Linux on amd64")
	}
	if _, err := find("qemu-system-x86_64"); err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	root, err := findRoot(wd)
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "vmtest-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	packages, err := listPackages(ctx, root, o.packages)
	if err != nil {
		return err
	}
	var kernels []kernel
	for _, name := range o.kernels {
		k, err := obtain(ctx, filepath.Join(cache, "boxwire-vmtest"), name)
		if err != nil {
			return err
		}
		for _, mode := range o.ipv6 {
			kernels = append(kernels, k.booted(mode))
		}
	}
	if err := build(ctx, packages, tmp); err != nil {
		return err
	}
	jobs := makeJobs(packages, o)
	common, err := commonTree(ctx, root, packages, jobs, tmp)
	if err != nil {
		return err
	}

	columns := make([]*column, len(kernels))
	var wg sync.WaitGroup
	slots := make(chan struct{}, o.parallel)
	for i, k := range kernels {
		columns[i] = newColumn(k, jobs, o.verbose)
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			columns[i].run(ctx, common, filepath.Join(tmp, k.name), o)
		})
	}
	wg.Wait()
	if o.again {
		for _, c := range columns {
			c.runAgain(ctx, common, filepath.Join(tmp, c.kernel.name+"-again"), o)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return report(os.Stdout, jobs, columns)
}
