package forwarding

import (
	"errors"
	"os"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// conf6 is where IPv6 has its settings, in a directory for each link and "all". The
// kernel accepts them over netlink only for reading. The directory shows the settings of
// the calling thread's namespace.
const conf6 = "/proc/sys/net/ipv6/conf/"

// reader reads an IPv6 setting of a link.
type reader func(link string, s Setting) (string, error)

func read6(link string, s Setting) (string, error) {
	path := conf6 + link + "/" + s.String()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) // os.Open asks the poller, too: there may be many links
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var b [16]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(b[:n])), nil
}

// planIPv6 plans for IPv6.
func (p *planning) planIPv6(read reader, o Options) error {
	on, err := read(All, IPv6Forwarding)
	if errors.Is(err, os.ErrNotExist) {
		return refuse.As(errors.ErrUnsupported, "the kernel has no IPv6 (%s%s)", conf6, All)
	}
	sw := Change{Link: All, Setting: IPv6Forwarding, From: '0', To: '1'}
	ours := p.isRecorded(sw) // the switch is on because of an earlier plan
	if err != nil || on != "0" && !ours && !o.Switched {
		return err // the host is a router already
	}
	_, err = read(All, IPv6ForceForwarding)
	force := err == nil && !o.GlobalSwitch
	late := on != "0" // a link without a record came after the switch, and forwards
	for i := range p.links {
		l := &p.links[i]
		if !p.forwards(l) || late && !ours && !p.own[l.Name] || late && p.isRecorded(Change{Link: l.Name, Setting: IPv6Forwarding}) {
			continue
		}
		c, err := p.changeIPv6(read, l, force, late)
		switch {
		case errors.Is(err, os.ErrNotExist): // gone since, or a link without IPv6
		case err != nil:
			return err
		case c != Change{}:
			p.add(c)
		}
	}
	if !force && !late {
		p.add(sw) // last: from now on accept_ra 1 means no
	}
	return nil
}

// changeIPv6 returns the change of one link, or the zero Change.
//
// With the global switch, a link that accepts router advertisements goes on accepting
// them, unless it is a network's own, which is no uplink.
func (p *planning) changeIPv6(read reader, l *rtnl.Link, force, late bool) (Change, error) {
	if force {
		v, err := read(l.Name, IPv6ForceForwarding)
		if err != nil || v != "0" {
			return Change{}, err
		}
		return Change{Link: l.Name, Index: l.Index, Setting: IPv6ForceForwarding, From: '0', To: '1'}, nil
	}
	v, err := read(l.Name, IPv6Forwarding)
	if err != nil {
		return Change{}, err
	}
	if v != "0" && !late {
		return Change{Link: l.Name, Index: l.Index, Setting: IPv6Forwarding, From: '1', To: '1'}, nil // the switch set back would set it to 0
	}
	ra, err := read(l.Name, IPv6AcceptRA)
	if err != nil {
		return Change{}, err
	}
	if ra == "1" && !p.own[l.Name] {
		return Change{Link: l.Name, Index: l.Index, Setting: IPv6AcceptRA, From: '1', To: '2'}, nil
	}
	return Change{Link: l.Name, Index: l.Index, Setting: IPv6Forwarding}, nil
}
