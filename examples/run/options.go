//go:build linux

package main

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
	name       string
	network    string // "bridge", "none", "host", or "box:NAME"
	bridge     string
	subnets    []netip.Prefix
	ownSubnets bool // they were given, and are not the defaults
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

const usage = `usage: run [flags] [--] CMD [ARG...]   run CMD in a box, wait, clean up
       run exec NAME CMD [ARG...]      run CMD in a box that exists
       run ls [-json]                  list the boxes
       run rm NAME...                  remove boxes and all that is theirs
       run gc                          remove what killed runs have left

flags:
`

// parseOptions reads the flags and the command of a run. Where they ask for it, it
// writes out how they are used and returns flag.ErrHelp.
func parseOptions(args []string, help io.Writer) (o options, err error) {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error is one line, and main's to print
	f.Usage = func() {}
	f.StringVar(&o.name, "name", "", "`NAME` of the box; random by default")
	f.StringVar(&o.network, "network", "bridge", "bridge, none, host, or box:NAME for that box's network")
	f.StringVar(&o.bridge, "bridge", "boxwire0", "the bridge; made on first use")
	list(f, "subnet", "`PREFIX` of the bridge's network (10.88.0.0/16 and fd88::/64)", netip.ParsePrefix, &o.subnets)
	list(f, "ip", "`ADDR` of the box; the first free one by default", netip.ParseAddr, &o.ip)
	f.Func("mac", "hardware `ADDR` of the box", func(s string) (err error) { o.mac, err = net.ParseMAC(s); return err })
	f.IntVar(&o.mtu, "mtu", 0, "largest packet in bytes; the bridge's by default")
	list(f, "p", "publish `[HOSTADDR:][HOSTPORT[-END]:]BOXPORT[-END][/tcp|udp|sctp]`", parsePublication, &o.publish)
	f.BoolVar(&o.internal, "internal", false, "the network has no way out")
	f.BoolVar(&o.isolate, "isolate", false, "the boxes of the network do not reach each other")
	f.BoolVar(&o.accept, "accept-forward", false, "have the forward chain of iptables-nft (Docker's, ufw's) accept the network")
	f.Func("rate-up", "bits a second that the box may send (10M, 1.5G)", func(s string) (err error) { o.up, err = parseRate(s); return err })
	f.Func("rate-down", "bits a second that the box may receive", func(s string) (err error) { o.down, err = parseRate(s); return err })
	f.BoolVar(&o.rootless, "rootless", false, "as a normal user, in a user namespace of its own, with a host of its own")
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
		return errors.New("there is no command to run; see run -h")
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
	for i, s := range o.subnets {
		if s.Bits() > s.Addr().BitLen()-2 || s.Bits() == 0 {
			return fmt.Errorf("-subnet %v: there is no room for a gateway and a box", s)
		}
		o.subnets[i] = s.Masked()
		for _, other := range o.subnets[:i] {
			if other.Overlaps(s) {
				return fmt.Errorf("-subnet %v overlaps -subnet %v", s, other)
			}
		}
	}
	if o.network == "bridge" {
		return nil
	}
	if _, shared := o.shares(); !shared && o.network != "none" && o.network != "host" {
		return fmt.Errorf("-network %s: it is none of bridge, none, host and box:NAME", o.network)
	}
	if o.ownSubnets || len(o.publish) > 0 || len(o.ip) > 0 || o.mac != nil || o.mtu != 0 || o.up != 0 || o.down != 0 || o.internal || o.isolate || o.accept {
		return fmt.Errorf("-network %s leaves nothing to set: -subnet, -p, -ip, -mac, -mtu, -internal, -isolate, -accept-forward and rates are for bridge", o.network)
	}
	return nil
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
