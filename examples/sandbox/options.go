//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/miekg/dns"
)

// options are what the command line asks for.
type options struct {
	allow     allowed
	resolvers []netip.AddrPort
	minTTL    time.Duration
	subnet    netip.Prefix
	accept    bool // the host's other firewall accepts the box
	rootless  bool
	command   []string
}

const usage = `usage: sandbox [flags] [--] CMD [ARG...]   run CMD with a network that is closed but for -allow

flags:
`

// parseOptions reads the flags and the command. Where they ask for it, it writes out how they are
// used and returns flag.ErrHelp.
func parseOptions(args []string, help io.Writer) (o options, err error) {
	f := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error is one line, and main's to print
	f.Usage = func() {}
	o.subnet = netip.MustParsePrefix("10.89.0.0/16")
	f.Func("allow", "what CMD may reach: `[PROTO ]DEST:PORT` with a name, *.NAME, an address or a prefix, or a rule such as 'udp host port 53'; may be given again", o.allow.add)
	f.Func("dns", "resolver `ADDR[:PORT]` that names are asked of, /etc/resolv.conf's by default; may be given again", o.addResolver)
	f.DurationVar(&o.minTTL, "min-ttl", time.Minute, "how long an address of a name stays open at least")
	f.TextVar(&o.subnet, "subnet", o.subnet, "`PREFIX` of IPv4 that boxes take their addresses from")
	f.BoolVar(&o.accept, "accept-forward", false, "have the forward chain of iptables-nft (Docker's, ufw's) accept the box")
	f.BoolVar(&o.rootless, "rootless", os.Geteuid() != 0, "work in a user namespace, with a host of its own")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(help)
			fmt.Fprint(help, usage)
			f.PrintDefaults()
		}
		return o, err
	}
	o.command = f.Args()
	return o, o.check()
}

// addResolver reads a value of -dns.
func (o *options) addResolver(text string) error {
	server, err := netip.ParseAddrPort(text)
	if err != nil {
		addr, aerr := netip.ParseAddr(text)
		if aerr != nil {
			return fmt.Errorf("%q is neither an address nor an address with a port", text)
		}
		server = netip.AddrPortFrom(addr, 53)
	}
	if server.Port() == 0 {
		return errors.New("port 0 is none")
	}
	o.resolvers = append(o.resolvers, server)
	return nil
}

// check refuses what cannot work, and fills in the defaults.
func (o *options) check() error {
	switch {
	case len(o.command) == 0:
		return errors.New("there is no command to run; see sandbox -h")
	case o.command[0] == "":
		return errors.New("the name of the command is empty")
	case o.minTTL < time.Second || o.minTTL > maxTTL:
		return fmt.Errorf("-min-ttl %v is not between %v and %v", o.minTTL, time.Second, maxTTL)
	case !o.subnet.Addr().Is4() || o.subnet.Bits() > boxBits:
		return fmt.Errorf("-subnet %v: an IPv4 prefix of at most %d bits is needed", o.subnet, boxBits)
	case o.subnet != o.subnet.Masked():
		return fmt.Errorf("-subnet %v has host bits: %v is the prefix", o.subnet, o.subnet.Masked())
	}
	if len(o.resolvers) > 0 || len(o.allow.names) == 0 {
		return nil
	}
	conf, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return fmt.Errorf("reading the resolvers (or give -dns): %w", err)
	}
	for _, s := range conf.Servers {
		if err := o.addResolver(s); err != nil {
			return fmt.Errorf("%s: nameserver %w", resolvConf, err)
		}
	}
	if len(o.resolvers) == 0 {
		return fmt.Errorf("%s names no resolver: give -dns", resolvConf)
	}
	return nil
}
