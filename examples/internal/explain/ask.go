package explain

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/nat"
)

// An Ask is what is to be explained. The zero Ask is every port and every box.
type Ask struct {
	Boxes []string // names of boxes

	Port  uint16     // a port of the host
	Proto nat.Proto  // of the port; 0 is every one
	Addr  netip.Addr // of the host, as visitors use it; the zero Addr is every one

	From netip.Addr // the visitor
	To   netip.Addr // what a box wants to reach; the zero Addr is where the default route leads
}

const usage = `usage: %[1]s explain [flags] [%[2]s...]

Says why a published port or a %[3]s is not reached, and what to do. Without -port and %[2]s it looks at all.
It looks at this host only, and changes nothing. The exit status is 0 if it finds no cause, 1 if something
is wrong, 2 if what it finds may be the cause, and 125 if it could not look.

flags:
`

// ParseAsk reads the arguments behind "explain". If they ask for help, it writes the usage, in which program and box are what
// the program and its boxes are called, and returns flag.ErrHelp.
func ParseAsk(args []string, program, box string, help io.Writer) (a Ask, err error) {
	f := flag.NewFlagSet("explain", flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error is one line, and the program's to print
	f.Usage = func() {}
	f.Func("port", "a published `[ADDR:]PORT[/tcp|udp|sctp]` of the host", a.parsePort)
	f.Func("from", "`ADDR` of a visitor", parseAddr(&a.From))
	f.Func("to", "`ADDR` that the "+box+" wants to reach; by default where the default route leads", parseAddr(&a.To))
	err = f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(help, usage, program, strings.ToUpper(box), box)
		f.SetOutput(help)
		f.PrintDefaults()
		return a, err
	case err != nil:
		return a, err
	}
	a.Boxes = f.Args()
	if a.Port != 0 && (len(a.Boxes) > 0 || a.To.IsValid()) {
		return a, fmt.Errorf("explain takes -port, or a %s and -to: %w", box, os.ErrInvalid)
	}
	if a.Addr.IsValid() && a.From.IsValid() && a.Addr.Is4() != a.From.Is4() {
		return a, fmt.Errorf("explain: -from %v is of another family than %v: %w", a.From, a.Addr, os.ErrInvalid)
	}
	return a, nil
}

func parseAddr(to *netip.Addr) func(string) error {
	return func(text string) error {
		a, err := netip.ParseAddr(text)
		if a = a.Unmap(); err != nil || a.Zone() != "" || a.IsUnspecified() {
			return fmt.Errorf("it is no address: %w", os.ErrInvalid)
		}
		*to = a
		return nil
	}
}

var protocols = map[string]nat.Proto{"tcp": nat.TCP, "udp": nat.UDP, "sctp": nat.SCTP}

// parsePort reads 8080, 53/udp, 203.0.113.1:8080/tcp, [2001:db8::1]:8080.
func (a *Ask) parsePort(text string) error {
	bad := fmt.Errorf("a port is 8080, 53/udp or 203.0.113.1:8080/tcp: %w", os.ErrInvalid)
	rest, proto, found := strings.Cut(text, "/")
	if found {
		if a.Proto, found = protocols[proto]; !found {
			return bad
		}
	}
	if n, err := strconv.ParseUint(rest, 10, 16); err == nil && n > 0 {
		a.Port = uint16(n)
		return nil
	}
	at, err := netip.ParseAddrPort(rest)
	if err != nil || at.Port() == 0 || at.Addr().Zone() != "" {
		return bad
	}
	a.Port = at.Port()
	if at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port()); !at.Addr().IsUnspecified() {
		a.Addr = at.Addr()
	}
	return nil
}

// asksFor says whether a published port is the one that is asked for.
func (a *Ask) asksFor(p nat.Port) bool {
	h := p.Host.Addr()
	return p.Host.Port() <= a.Port && a.Port <= max(p.HostLast, p.Host.Port()) &&
		(a.Proto == 0 || a.Proto == p.Proto) &&
		(!a.Addr.IsValid() || h == a.Addr || h.IsUnspecified() && h.Is4() == a.Addr.Is4()) &&
		(!a.From.IsValid() || h.Is4() == a.From.Is4())
}
