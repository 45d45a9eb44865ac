//go:build linux

package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A box is read from the kernel alone, which keeps all that run knows of it. Its
// namespace has a name. The alias of its loopback link says which run it belongs
// to. So does that of the bridge port, which also names the box behind it and its
// addresses.
type box struct {
	Name     string         `json:"name"`
	Addrs    []netip.Prefix `json:"addresses"`
	Bridge   string         `json:"bridge,omitempty"`
	HostLink string         `json:"host_link,omitempty"`
	MAC      string         `json:"mac,omitempty"`
	Ports    []string       `json:"ports"`
	Pid      int            `json:"pid"` // of the run that made it; 0: it is gone

	run mark // the same run, with the time it began
}

// madeBy notes which run has made the box, if that is still there.
func (b *box) madeBy(m mark) {
	if m.alive() {
		b.Pid, b.run = m.pid, m
	}
}

// A mark is the alias of a box's loopback link.
type mark struct {
	pid   int    // of the run that made the box
	start uint64 // when that began, in clock ticks since boot: pids are used again
	host  uint64 // inode of the namespace that is the host
}

const markPrefix = "boxwire run "

func (m mark) String() string {
	return fmt.Sprintf("%spid %d start %d host %d", markPrefix, m.pid, m.start, m.host)
}

func parseMark(alias string) (m mark, ok bool) {
	n, err := fmt.Sscanf(alias, markPrefix+"pid %d start %d host %d", &m.pid, &m.start, &m.host)
	return m, err == nil && n == 3
}

// alive says whether the run that made the box is still there.
func (m mark) alive() bool {
	start, err := startTime(m.pid)
	return err == nil && start == m.start
}

// startTime is the time that a process began (field 22 of /proc/PID/stat,
// proc(5)).
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name before it may hold blanks
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// portAlias is the alias of a box's bridge port. Behind the run stand the box's
// hardware address and its others.
func portAlias(name string, m mark, mac net.HardwareAddr, addrs []netip.Prefix) string {
	alias := fmt.Sprintf("%s%s pid %d start %d %v", portPrefix, name, m.pid, m.start, mac)
	for _, a := range addrs {
		alias += " " + a.String()
	}
	return alias
}

const portPrefix = "boxwire run box "

// A portMark is what is in such an alias.
type portMark struct {
	box   string
	run   mark
	mac   string
	addrs []netip.Prefix
}

func parsePortAlias(alias string) (p portMark, ok bool) {
	rest, ok := strings.CutPrefix(alias, portPrefix)
	fields := strings.Fields(rest)
	if !ok || len(fields) < 5 {
		return p, false
	}
	if n, err := fmt.Sscanf(strings.Join(fields[1:5], " "), "pid %d start %d", &p.run.pid, &p.run.start); err != nil || n != 2 {
		return p, false
	}
	p.box = fields[0]
	for _, f := range fields[5:] {
		if mac, err := net.ParseMAC(f); err == nil {
			p.mac = mac.String()
			continue
		}
		addr, err := netip.ParsePrefix(f)
		if err != nil {
			return portMark{}, false
		}
		p.addrs = append(p.addrs, addr)
	}
	return p, true
}

// halfPort says whether a link is a bridge port that a run was killed over before
// it could give it its alias; see isOwn.
func halfPort(l link.Link, alias string) bool {
	return alias == "" && l.Kind == "veth" && bytes.Equal(l.MAC, stableMAC(l.Name))
}

// boxes reads all boxes of the host, those that killed runs have left included.
func boxes(ctx context.Context, host *netns.NS) ([]*box, error) {
	all := map[string]*box{}
	get := func(name string) *box {
		if all[name] == nil {
			all[name] = &box{Name: name}
		}
		return all[name]
	}
	bridges, err := ownBridges(ctx, host)
	if err != nil {
		return nil, err
	}
	ports, err := link.List(ctx, host, link.Filter{Kind: "veth"})
	if err != nil {
		return nil, err
	}
	half := map[string]link.Link{} // without an alias, by name
	for _, l := range ports {
		alias, err := aliasOf(ctx, l)
		if err != nil {
			return nil, err
		}
		if halfPort(l, alias) {
			half[l.Name] = l
		}
		if p, ok := parsePortAlias(alias); ok {
			b := get(p.box)
			b.madeBy(p.run)
			b.Addrs, b.MAC, b.HostLink, b.Bridge = p.addrs, p.mac, l.Name, bridges[l.Master]
		}
	}
	if err := marked(ctx, host, get); err != nil {
		return nil, err
	}
	for _, b := range all {
		if l, ok := half[portName(b.Name)]; ok {
			b.HostLink, b.Bridge = l.Name, bridges[l.Master]
		}
	}
	if err := listPorts(ctx, host, get); err != nil {
		return nil, err
	}
	sorted := make([]*box, 0, len(all))
	for _, b := range all {
		sorted = append(sorted, b)
	}
	slices.SortFunc(sorted, func(a, b *box) int { return strings.Compare(a.Name, b.Name) })
	return sorted, nil
}

// ownBridges returns the names of the bridges that run has made, by index.
func ownBridges(ctx context.Context, host *netns.NS) (map[int]string, error) {
	links, err := link.List(ctx, host, link.Filter{Kind: "bridge"})
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		own, _, err := isOwn(ctx, l)
		if err != nil {
			return nil, err
		}
		if own {
			names[l.Index] = l.Name
		}
	}
	return names, nil
}

// aliasOf reads a link's alias; a link that is gone has none.
func aliasOf(ctx context.Context, l link.Link) (string, error) {
	d, err := l.Details(ctx)
	return d.Spec.Alias, netns.IgnoreNotExist(err)
}

// marked adds what the boxes' own namespaces say.
func marked(ctx context.Context, host *netns.NS, get func(string) *box) error {
	entries, err := os.ReadDir(netns.DefaultDir)
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	for _, e := range entries {
		ns, m, err := openSpace(ctx, host, e.Name())
		if err != nil {
			continue // not a box, or another host's
		}
		ns.Close()
		get(e.Name()).madeBy(m)
	}
	return nil
}

// errNoBox is that a namespace has no mark, or another host's.
var errNoBox = errors.New("it is no box of this host")

// openSpace opens the namespace of a box of the host, and reads its mark.
// `ip netns exec` gives a program a mount namespace of its own: what it mounts on a
// name the others see as an empty file, and find by looking at all mounts.
func openSpace(ctx context.Context, host *netns.NS, name string) (*netns.NS, mark, error) {
	ns, err := netns.Open(ctx, name)
	if err == nil {
		return ownSpace(ctx, host, ns)
	}
	if !errors.Is(err, netns.ErrNotNamespace) {
		return nil, mark{}, err
	}
	all, aerr := netns.ListAll(ctx)
	if aerr != nil && !errors.Is(aerr, os.ErrPermission) {
		return nil, mark{}, aerr
	}
	for _, info := range all {
		for _, h := range info.Holders {
			if h.Kind != netns.HolderMount || h.Path != netns.DefaultDir+"/"+name {
				continue
			}
			if ns, oerr := netns.OpenPath(ctx, fmt.Sprintf("/proc/%d/root%s", h.Pid, h.Path)); oerr == nil {
				ns, m, oerr := ownSpace(ctx, host, ns)
				if oerr == nil {
					return ns, m, nil
				}
				err = oerr
			}
		}
	}
	return nil, mark{}, err
}

// ownSpace reads the mark of a namespace, and closes one that is no box of the
// host.
func ownSpace(ctx context.Context, host, ns *netns.NS) (*netns.NS, mark, error) {
	lo, err := link.Get(ctx, ns, "lo")
	var alias string
	if err == nil {
		alias, err = aliasOf(ctx, lo)
	}
	m, ok := parseMark(alias)
	if err == nil && (!ok || m.host != host.ID().Ino) {
		err = errNoBox
	}
	if err != nil {
		ns.Close()
		return nil, mark{}, err
	}
	return ns, m, nil
}

// listPorts adds what is published, by owner.
func listPorts(ctx context.Context, host *netns.NS, get func(string) *box) error {
	gw, err := openOldNAT(ctx, host)
	if gw == nil {
		return err
	}
	defer gw.Close()
	published, err := gw.ListPorts(ctx)
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	for _, p := range published {
		b := get(p.Owner)
		b.Ports = append(b.Ports, p.Port.String())
	}
	return nil
}

// table is the name of the table of the boxes' networks and ports.
const table = "boxwire-run"

// openNAT opens the table, and makes it where it is missing.
func openNAT(ctx context.Context, host *netns.NS) (*nat.NAT, error) {
	return nat.Open(ctx, host, nat.Options{Name: table})
}

// openOldNAT opens the table if there is one; nil means that there is none.
func openOldNAT(ctx context.Context, host *netns.NS) (*nat.NAT, error) {
	if err := nat.Check(ctx, host, table, nat.State{}); errors.Is(err, os.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	return openNAT(ctx, host) // which says what is wrong
}
