//go:build linux

// Cni is a CNI plugin of type "boxwire": it plugs containers into a bridge,
// with addresses, routes, masquerade, published ports and limits of their rate,
// where the reference plugins bridge, portmap, firewall and bandwidth would be
// chained.
//
//	CGO_ENABLED=0 go build -C examples/cni -o /opt/cni/bin/boxwire .
//
// With arguments it is a command: boxwire explain says why a published port or a
// container is not reached.
//
// It speaks CNI 0.3.1 to 1.1.0 (https://www.cni.dev/docs/spec/). What it has
// made it finds again in the kernel, by names, aliases and comments. The
// network namespace that it is started in is the host.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

const about = "CNI plugin boxwire"

func main() {
	if os.Getenv("CNI_COMMAND") == "" && len(os.Args) > 1 {
		os.Exit(command(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	// A process that ends in milliseconds collects no garbage, unless there is much of it.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)
	// Opening a pipe waits for its writer. To DEL, a path that is no namespace is
	// a namespace that is gone; ADD and CHECK report it.
	if info, err := os.Stat(os.Getenv("CNI_NETNS")); err == nil && !info.Mode().IsRegular() {
		if os.Getenv("CNI_COMMAND") == "DEL" {
			os.Unsetenv("CNI_NETNS")
		} else {
			types.NewError(types.ErrInvalidNetNS, "the container's network namespace cannot be opened", os.Getenv("CNI_NETNS")+" is no network namespace").Print()
			os.Exit(1)
		}
	}
	if err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    verb(checked(add)),
		Del:    verb(del),
		Check:  verb(checked(check)),
		GC:     verb(gc),
		Status: verb(checked(status)),
	}, version.VersionsStartingFrom("0.3.1"), about); err != nil {
		err.Print()
		os.Exit(1)
	}
}

// A request is one call of the plugin.
type request struct {
	args *skel.CmdArgs
	conf *config
	host *netns.NS // where the bridge is
	at   attachment

	box   netns.ID // the container's namespace, of an ADD
	wasUp bool     // of the mode host-device: the host's device was up before this ADD

	shares   bool           // other DELs may be under way
	unlinked []<-chan error // answers of the kernel that unlink has not waited for
}

// checked refuses a configuration that cannot work before fn is called.
func checked(fn func(context.Context, *request) error) func(context.Context, *request) error {
	return func(ctx context.Context, r *request) error {
		if err := r.conf.check(); err != nil {
			return err
		}
		return fn(ctx, r)
	}
}

// verb makes one of the skeleton's functions of one of ours.
func verb(fn func(context.Context, *request) error) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		conf, err := parseConfig(args)
		if err != nil {
			return err
		}
		host, err := netns.Current()
		if err != nil {
			return failed("looking at the host's network namespace", err)
		}
		defer host.Close()
		at := attachment{network: conf.Name, container: args.ContainerID, ifname: args.IfName}
		conf.pair = at.link()
		return reply(fn(context.Background(), &request{args: args, conf: conf, host: host, at: at}))
	}
}
