//go:build linux

package command

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/agent"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
	"github.com/boxwire/boxwire/examples/fleet/internal/wire"
	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/route"
)

// certificates are the files of TLS.
type certificates struct{ ca, cert, key string }

func (c *certificates) flags(f *flag.FlagSet) {
	f.StringVar(&c.ca, "ca", "", "`FILE` of the authority that signs the store's and the nodes' certificates")
	f.StringVar(&c.cert, "cert", "", "`FILE` of this node's certificate")
	f.StringVar(&c.key, "key", "", "`FILE` of its private key")
}

const agentUsage = `usage: fleet agent -name FLEET [flags]

Keeps this machine a node of a fleet until SIGTERM. What it has wired stays when it ends, and serves on.

flags:
`

// parseAgent reads the flags of `fleet agent`. It changes nothing.
func parseAgent(args []string, help io.Writer) (agent.Options, error) {
	def := state.DefaultConfig()
	o := agent.Options{Config: def, Store: &store.Config{}}
	var where, listen string
	var cert certificates
	f := newFlags("agent")
	f.StringVar(&o.Fleet, "name", "", "`NAME` of the fleet; all its nodes give the same")
	f.StringVar(&o.Name, "node", "", "`NAME` of this node, for people; the machine's by default")
	f.StringVar(&o.StateDir, "state", status.DefaultDir, "`DIRECTORY` of the node's identity and what it last knew")
	f.StringVar(&o.Socket, "socket", status.DefaultSocket, "`PATH` of the unix socket with /ready, /metrics and /state")
	f.StringVar(&where, "store", "embed", "`URLS` of etcd, with commas, or embed: one in this program, its data in -state")
	f.StringVar(&listen, "listen", "", "`URL` that the embedded store serves other nodes on too; without it, this agent alone by a socket in -state")
	f.StringVar(&o.Metrics, "metrics", "", "`ADDR:PORT` with /metrics and /ready for other machines; none by default")
	f.BoolVar(&o.Store.Insecure, "insecure", false, "talk to a store on the network without TLS: whoever reaches it directs the fleet's packets")
	cert.flags(f)
	f.StringVar(&o.Wire.Link, "link", wire.DefaultLink, "`NAME` of the tunnel's link")
	owner := f.Uint("protocol", uint(wire.DefaultOwner), "`NUMBER` that marks the fleet's routes; no other program may use it")
	f.Func("via", "`LINK` to the other nodes; repeat for more; those of the default routes by default", func(s string) error {
		o.Wire.Underlay = append(o.Wire.Underlay, s)
		return nil
	})
	verbose := f.Bool("v", false, "log what is done, too")

	f.Var((*pools)(&o.Config.Pools), "pool", "`PREFIXES` that nodes' prefixes come from, with commas")
	f.IntVar(&o.Config.Size4, "size4", def.Size4, "`LENGTH` of a node's IPv4 prefix")
	f.IntVar(&o.Config.Size6, "size6", def.Size6, "`LENGTH` of a node's IPv6 prefix")
	f.StringVar((*string)(&o.Config.Mode), "mode", string(def.Mode), "`MODE`: tunnel, direct, auto or wireguard")
	vni := f.Uint("vni", uint(def.VNI), "`NUMBER` of the tunnel's network")
	port := f.Uint("port", uint(def.Port), "UDP `PORT` of the tunnel")
	f.TextVar(&o.Config.Hold, "hold", def.Hold, "`TIME` that a node is missing before it is asked whether it is there")
	f.TextVar(&o.Config.TTL, "ttl", def.TTL, "`TIME` after which a silent agent is missing")
	if err := parse(f, agentUsage, args, help); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, usageError{fmt.Errorf("agent takes flags alone, not %.80q", f.Args())}
	case o.Fleet == "":
		return o, usageError{errors.New("-name is missing: the name of the fleet")}
	}
	if o.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return o, err
		}
		o.Name = name
	}
	if err := errors.Join(
		about("-name", state.ValidFleet(o.Fleet)), about("-node", state.ValidName(o.Name)),
		below("-vni", *vni, 1<<24-1), below("-port", *port, 1<<16-1), validOwner(*owner),
		about("-link", linkname.Check(o.Wire.Link)), validMetrics(o.Metrics), validStore(where, listen, cert),
	); err != nil {
		return o, usageError{err}
	}
	for _, name := range o.Wire.Underlay {
		if err := about("-via", linkname.Check(name)); err != nil {
			return o, usageError{err}
		}
	}
	o.Config.VNI, o.Config.Port, o.Wire.Owner = uint32(*vni), uint16(*port), route.Protocol(*owner)
	if err := o.Config.Validate(); err != nil {
		return o, usageError{err}
	}
	o.Named = named(f, map[string]string{
		"pool": "pools", "size4": "size4", "size6": "size6", "mode": "mode", "vni": "vni", "port": "port", "hold": "hold", "ttl": "ttl",
	})
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if o.StateDir == "" {
		return o, usageError{errors.New("-state is empty: want a directory")}
	}
	var err error
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil {
		return o, err
	}
	if where != "embed" {
		o.Store.Endpoints = strings.Split(where, ",")
		o.Store.CA, o.Store.Cert, o.Store.Key = cert.ca, cert.cert, cert.key
		given := *o.Store
		given.Fleet = o.Fleet
		if err := about("-store", given.Validate()); err != nil {
			return o, usageError{err}
		}
		return o, nil
	}
	o.Embed = &store.EmbedConfig{
		Dir: filepath.Join(o.StateDir, "etcd"), CA: cert.ca, Cert: cert.cert, Key: cert.key, Insecure: o.Store.Insecure,
	}
	if listen != "" {
		o.Embed.Listen = []string{listen}
		if err := about("-listen", o.Embed.Validate()); err != nil {
			return o, usageError{err}
		}
	}
	return o, nil
}

// about says which flag an error is about.
func about(flag string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", flag, err)
}

// below refuses a number that is too large. The lower end is the config's to check.
func below(flag string, n, most uint) error {
	if n <= most {
		return nil
	}
	return fmt.Errorf("%s %d: want 1 to %d", flag, n, most)
}

// validOwner refuses a protocol whose routes another program makes: the agent deletes those of its own that it does not know.
func validOwner(n uint) error {
	if n == 0 || n > 255 {
		return fmt.Errorf("-protocol %d: want 5 to 255", n)
	}
	// The first ones are the kernel's and ip's; those of daemons have names in route's text form.
	if p := route.Protocol(n); n < 5 || p.String() != strconv.FormatUint(uint64(n), 10) {
		return fmt.Errorf("-protocol %d: it marks the routes of others (%v): want a number that no program has, like %d", n, p, wire.DefaultOwner)
	}
	return nil
}

// validMetrics refuses what cannot be listened on.
func validMetrics(addr string) error {
	if addr == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || port == "" {
		return fmt.Errorf("-metrics %.80q: want ADDR:PORT, like 127.0.0.1:9469", addr)
	}
	return nil
}

// validStore refuses flags of the store that do not go together.
func validStore(where, listen string, cert certificates) error {
	switch {
	case where == "":
		return errors.New("-store is empty: want the URLS of etcd, or embed")
	case listen != "" && where != "embed":
		return errors.New("-listen is of the store that -store embed runs")
	case where == "embed" && listen == "" && cert != (certificates{}):
		return errors.New("-ca, -cert and -key are for other machines, and the embedded store serves this one alone: give -listen, or the URLS of another store by -store")
	}
	return nil
}

// newFlags are the flags of a verb. An error is main's to print.
func newFlags(verb string) *flag.FlagSet {
	f := flag.NewFlagSet(verb, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	return f
}

// parse reads flags. For -h it writes how they are used and returns flag.ErrHelp.
func parse(f *flag.FlagSet, usage string, args []string, help io.Writer) error {
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(help, usage)
		f.SetOutput(help)
		f.PrintDefaults()
		return flag.ErrHelp
	case err != nil:
		return usageError{err}
	}
	return nil
}

// named are the fields of the flags that the command line has.
func named(f *flag.FlagSet, fields map[string]string) []string {
	var names []string
	f.Visit(func(given *flag.Flag) {
		if field, ok := fields[given.Name]; ok {
			names = append(names, field)
		}
	})
	return names
}

// pools is a flag's list of prefixes.
type pools []netip.Prefix

func (p *pools) String() string {
	var all []string
	for _, prefix := range *p {
		all = append(all, prefix.String())
	}
	return strings.Join(all, ",")
}

func (p *pools) Set(s string) error {
	*p = nil
	for text := range strings.SplitSeq(s, ",") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		*p = append(*p, prefix)
	}
	return nil
}

// patience is how long a verb waits for the store or an agent.
const patience = 10 * time.Second
