//go:build linux

package runner

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/link"
)

// options are what the command line asks for.
type options struct {
	program    Program
	name       string
	network    string // "bridge", "none", "host", or "box:NAME"
	bridge     string
	subnets    []netip.Prefix
	ownSubnets bool // they were given, and are not the defaults
	trusted    []netip.Prefix
	ip         []netip.Addr
	mac        net.HardwareAddr
	mtu        int
	publish    []publication
	internal   bool
	isolate    bool
	accept     bool // the host's other firewall accepts the network
	up, down   link.Rate
	rootless   bool
	command    []string
}

var defaultSubnets = []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16"), netip.MustParsePrefix("fd88::/64")}

// usage says how the program is called.
func (p Program) usage() string {
	lines := [][2]string{
		{p.runs() + " [flags] [--] CMD [ARG...]", "run CMD in a box, wait, clean up"},
		{p.Name + " exec NAME CMD [ARG...]", "run CMD in a box that exists"},
		{p.Name + " ls [-json]", "list the boxes"},
		{p.Name + " explain [flags] [NAME...]", "say why a port or a box is not reached"},
		{p.Name + " rm NAME...", "remove boxes and all that is theirs"},
		{p.Name + " gc", "remove what killed runs have left"},
	}
	var b strings.Builder
	for i, l := range lines {
		start := "       "
		if i == 0 {
			start = "usage: "
		}
		fmt.Fprintf(&b, "%s%-*s%s\n", start, len(lines[0][0])+len("   "), l[0], l[1])
	}
	return b.String() + "\nflags:\n"
}

// fixed says whether the program fixes the network, so that no flag chooses one.
func (p Program) fixed() bool { return p.Network != nil }

// runs is how a command line for a new box begins.
func (p Program) runs() string {
	if p.fixed() {
		return p.Name + " run"
	}
	return p.Name
}

// help is the command that prints the usage.
func (p Program) help() string { return p.runs() + " -h" }

// parseOptions reads the flags and the command of a run. Where they ask for it, it
// writes out how they are used and returns flag.ErrHelp.
func parseOptions(args []string, p Program, help io.Writer) (o options, err error) {
	o.program = p
	f := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error is one line, and main's to print
	f.Usage = func() {}
	f.StringVar(&o.name, "name", "", "`NAME` of the box; random by default")
	f.StringVar(&o.network, "network", "bridge", "bridge, none, host, or box:NAME for that box's network")
	list(f, "ip", "`ADDR` of the box; the first free one by default", netip.ParseAddr, &o.ip)
	f.Func("mac", "hardware `ADDR` of the box", func(s string) (err error) { o.mac, err = net.ParseMAC(s); return err })
	list(f, "p", "publish `[HOSTADDR:][HOSTPORT[-END]:]BOXPORT[-END][/tcp|udp|sctp]`", parsePublication, &o.publish)
	f.BoolVar(&o.accept, "accept-forward", false, "have the forward chain of iptables-nft (Docker's, ufw's) accept the network")
	f.Func("rate-up", "bits a second that the box may send (10M, 1.5G)", func(s string) (err error) { o.up, err = parseRate(s); return err })
	f.Func("rate-down", "bits a second that the box may receive", func(s string) (err error) { o.down, err = parseRate(s); return err })
	if !p.fixed() {
		f.StringVar(&o.bridge, "bridge", "boxwire0", "the bridge; made on first use")
		list(f, "subnet", "`PREFIX` of the bridge's network (10.88.0.0/16 and fd88::/64)", netip.ParsePrefix, &o.subnets)
		f.IntVar(&o.mtu, "mtu", 0, "largest packet in bytes; the bridge's by default")
		f.BoolVar(&o.internal, "internal", false, "the network has no way out")
		f.BoolVar(&o.isolate, "isolate", false, "the boxes of the network do not reach each other")
		f.BoolVar(&o.rootless, "rootless", false, "as a normal user, in a user namespace of its own, with a host of its own")
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(help)
			fmt.Fprint(help, p.usage())
			f.PrintDefaults()
		}
		return o, err
	}
	o.command = f.Args()
	return o, o.check()
}

// list defines a flag that may be given several times.
func list[T any](f *flag.FlagSet, name, usage string, parse func(string) (T, error), all *[]T) {
	f.Func(name, usage+"; may be given again", func(s string) error {
		v, err := parse(s)
		*all = append(*all, v)
		return err
	})
}

// check refuses what cannot work, and fills in the defaults.
func (o *options) check() error {
	if len(o.command) == 0 {
		return fmt.Errorf("there is no command to run; see %s", o.program.help())
	}
	if o.name == "" {
		b := make([]byte, 4)
		rand.Read(b)
		o.name = "box-" + hex.EncodeToString(b)
	}
	if err := checkBoxName(o.name); err != nil {
		return err
	}
	o.ownSubnets = len(o.subnets) > 0
	if !o.ownSubnets {
		o.subnets = slices.Clone(defaultSubnets)
	}
	if err := o.checkSubnets(); err != nil {
		return err
	}
	if o.network == "bridge" {
		return nil
	}
	if _, shared := o.shares(); !shared && o.network != "none" && o.network != "host" {
		return fmt.Errorf("-network %s: it is none of bridge, none, host and box:NAME", o.network)
	}
	if o.ownSubnets || len(o.publish) > 0 || len(o.ip) > 0 || o.mac != nil || o.mtu != 0 || o.up != 0 || o.down != 0 || o.internal || o.isolate || o.accept {
		flags := "-subnet, -p, -ip, -mac, -mtu, -internal, -isolate, -accept-forward"
		if o.program.fixed() {
			flags = "-p, -ip, -mac, -accept-forward"
		}
		return fmt.Errorf("-network %s leaves nothing to set: %s and rates are for bridge", o.network, flags)
	}
	return nil
}

// use takes over what the program fixes of the network.
func (o *options) use(n Network) error {
	if len(n.Subnets) == 0 {
		return fmt.Errorf("the network of %s has no subnet", n.Bridge)
	}
	o.bridge, o.subnets, o.ownSubnets, o.trusted, o.mtu = n.Bridge, slices.Clone(n.Subnets), true, n.Trusted, n.MTU
	return o.checkSubnets()
}

// checkSubnets refuses subnets that are too small or overlap.
func (o *options) checkSubnets() error {
	for i, s := range o.subnets {
		if s.Bits() > s.Addr().BitLen()-2 || s.Bits() == 0 {
			return fmt.Errorf("%s: there is no room for a gateway and a box", o.subnet(s))
		}
		o.subnets[i] = s.Masked()
		for _, other := range o.subnets[:i] {
			if other.Overlaps(s) {
				return fmt.Errorf("%s overlaps %s", o.subnet(s), o.subnet(other))
			}
		}
	}
	return nil
}

// subnet is what messages call a subnet: by the flag, if there is one.
func (o *options) subnet(s netip.Prefix) string {
	if o.program.fixed() {
		return "subnet " + s.String()
	}
	return "-subnet " + s.String()
}

// shares returns the box whose network the new one is to share.
func (o *options) shares() (name string, ok bool) { return strings.CutPrefix(o.network, "box:") }

// checkBoxName keeps names to what is a file's, a link's alias and an owner of
// published ports at once.
func checkBoxName(name string) error {
	const most = 63
	if name == "" || len(name) > most {
		return fmt.Errorf("the name %q has %d bytes; 1 to %d are possible", name, len(name), most)
	}
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", r)) {
			return fmt.Errorf("the name %q may have letters, digits, '-', '_' and '.', and begin with one of the first two", name)
		}
	}
	return nil
}
