package nat

import (
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Options are the options of [Open]. The zero value is fine.
type Options struct {
	// Name is the name of the nftables table, by default "boxwire". It is a letter, then letters,
	// digits, '_', '-' and '.', at most 64 bytes. Programs that use one name share published ports
	// and networks. Programs with different names do not see each other's, and a packet passes both
	// tables.
	Name string

	// LoopbackLinks are links that may carry packets from and to 127.0.0.0/8, besides lo: e.g.
	// loopback0 of WSL2 with mirrored networking. Such packets on other links are dropped. The
	// links need not exist. Links that another program named in the same table stay allowed.
	LoopbackLinks []string

	// Alive reports whether an owner of published ports still exists; nil means that all do.
	// Publish replaces a conflicting port of an owner that does not, in the same transaction.
	// Publish calls Alive, so it must not call methods of the NAT.
	Alive func(owner string) bool

	// NoReserve leaves the reservation of published host ports to the caller. By default, a NAT
	// keeps other programs of the host from binding them; the documentation of [Port] says how. It
	// also opens a few sockets in advance, from the second port of a protocol on.
	//
	// A reservation binds the port. For a port below net.ipv4.ip_unprivileged_port_start that takes
	// CAP_NET_BIND_SERVICE, and is os.ErrPermission without. With NoReserve nothing is bound.
	NoReserve bool

	// ReadOnly is for programs that look and never change: a map of the machine, monitoring. Open
	// then opens a table that is there, and is os.ErrNotExist for a missing one. It installs and
	// rebuilds nothing, takes no lock file, writes no setting and binds no port, and neither do the
	// methods. The methods that list, watch, explain and expand work as ever. All others that would
	// change something are os.ErrPermission, with an error that says "opened read-only", before
	// anything is sent. Options other than Name have no effect. Reading takes CAP_NET_ADMIN over the
	// namespace, too, because the kernel shows nftables to no one else.
	//
	// [NAT.WatchDenied] takes the namespace's one place for a watcher, with ReadOnly, too.
	ReadOnly bool
}

// maxName is the length of the longest table name taken; the kernel takes 255.
const maxName = 64

// NAT is an open table of published ports and networks in one namespace. It needs the namespace
// handle that it was opened with, and holds the reserved ports until [NAT.Close]. It is safe for
// concurrent use.
//
// # The table
//
// Open installs a fixed set of chains, rules and empty sets in one transaction. All state is
// elements of those sets: one or two for a published port, eleven for a masqueraded network with
// IPv4, seventeen with IPv6 as well, up to fifteen more for a subnet of an odd length, and one more for
// each further prefix of 16 bits that a subnet has. Networks whose subnets begin alike share the last.
// `nft list table inet boxwire` shows them. The owner of a port is the element's comment. Delete
// removes everything. Rules of other programs do not change, and a packet that another table drops
// stays dropped.
//
// # Concurrency
//
// Several programs may work on one table. Each transaction names the generation of the ruleset that
// it was built on, and is built again if another commit came in between. An error means that
// nothing was changed, even if the kernel's answer was lost. If something that follows a
// transaction failed, the error says that the change is made.
//
// A lock file serializes the changes of all programs in a namespace. It exists while a change is
// under way: in /run, for an unprivileged user in XDG_RUNTIME_DIR or the directory for temporary
// files. If a program was killed, the next change removes its file.
//
// # Connections
//
// The kernel evaluates the rules for the first packet of a connection only. So each change ends the
// flows that the table would not let begin any more, or would translate otherwise, and no others.
// The next packet of a UDP flow begins a new one, and goes to the new box.
//
//   - Flows of published and unpublished ports are found by protocol, host address and host port.
//     Flows to the same port of other machines stay, as do TCP connections of the host's own
//     programs. With no conntrack entries this is free. On Linux 6.11 and newer it costs little for
//     a port on one IPv4 address, and where TCP is published. Otherwise, above all for wildcard
//     ports, the kernel reads its whole table: once for all ports of a call, or once for each where
//     the table is large.
//   - Flows of networks are found by the addresses of the boxes, whenever a network is added or
//     removed, or its filter or translation changes. The kernel reads its whole table.
//   - The first Sync of a program checks all flows, because an earlier program may have been killed
//     between a change and its flush.
//
// Some flows stay although the table would not let them begin: their pinhole was deleted later, or
// another program translates them. The first Sync of a program and a repeated SetNetwork leave such
// flows alone; they end with the change that takes away what let them begin. Where the table was
// missing or damaged, Sync and Maintain end flows to ports of boxes that are not open, because they
// may have begun meanwhile.
//
// # Beside other programs
//
// What Docker, containerd, podman, netavark, firewalld, ufw, udev, NetworkManager and
// systemd-networkd do to boxes was measured with the programs themselves. The page BESIDE.md in the
// directory of this package says it, with the settings. In short:
//
// Docker and ufw drop what they do not know. [NAT.AcceptForward] makes them accept the boxes.
//
// firewalld filters by zones (firewalld.zones(5)). A network's interface without a zone belongs to
// the default zone. The zone public, the usual default, closes the host's services to the boxes. It
// also closes the way out, unless the uplink was added to the zone by its name, as NetworkManager
// does. With br_netfilter it separates boxes of one bridge. Published ports answer in every zone.
//
//   - `firewall-cmd --permanent --zone=trusted --add-interface=boxwire0`, once for each interface, and
//     `firewall-cmd --reload` open both.
//   - A zone of the boxes with a policy to the zone ANY, whose target is ACCEPT, opens the way out alone
//     (firewalld.policies(5)).
//
// A reload or restart of firewalld changes nothing of this table. Connections that begin during it wait
// for their next packet.
//
// ufw closes the way out, published ports and the host's services to boxes when it is enabled.
// [NAT.AcceptForward] opens the first two, and lasts over `ufw reload`.
// `ufw allow in on boxwire0` opens the host's services.
//
// NetworkManager leaves a bridge and its ports as they are, until `nmcli networking off`, which
// removes the bridge's addresses, and then its ports. A file in /etc/NetworkManager/conf.d with
// [keyfile] and unmanaged-devices=interface-name:boxwire*;interface-name:veth* excludes the links of
// boxes. The names are those that the program chooses.
//
// When systemd-networkd starts, it removes rules of other programs, and their routes and next hops
// but for those on links that it does not manage (networkd.conf(5)). ManageForeignRoutes=no (systemd
// 246), ManageForeignRoutingPolicyRules=no (249) and ManageForeignNextHops=no (256) in its section
// [Network] prevent that. A .network file with Name=* takes the bridge and its ports, unless an
// earlier one has Unmanaged=yes for them (systemd.network(5)). If networkd replaces the address of
// the uplink, routes by way of that and masqueraded connections end: see KeepConfiguration= there,
// and Network.SNAT.
//
// systemd-udevd replaces a hardware address that the kernel chose, soon after the link is made
// (systemd.link(5), MACAddressPolicy=persistent in 99-default.link). It keeps an address that the
// link was made with, as link.Create makes it.
type NAT struct {
	ns    *netns.NS
	table string
	alive func(owner string) bool

	loopback   []string // Options.LoopbackLinks
	unreserved bool     // host ports are not reserved
	readOnly   bool     // Options.ReadOnly
	runtimeState
}

// NS returns the namespace that the table is in.
func (n *NAT) NS() *netns.NS { return n.ns }

// Name returns the name of the nftables table.
func (n *NAT) Name() string { return n.table }

// String returns the table as nft names it: "table inet boxwire".
func (n *NAT) String() string { return "table inet " + n.table }

// tableName checks a name and fills in the default.
func tableName(name string) (string, error) {
	if name == "" {
		return "boxwire", nil
	}
	if len(name) > maxName {
		return name, refuse.Input("the table name has %d bytes, %d is the most", len(name), maxName)
	}
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789_-.", r)) {
			return name, refuse.Input("the table name %q contains %q at byte %d", name, r, i)
		}
	}
	return name, nil
}

// checked checks the options, and returns them with the default name filled in.
func (o Options) checked() (Options, error) {
	var err error
	if o.Name, err = tableName(o.Name); err != nil {
		return o, err
	}
	for _, name := range o.LoopbackLinks {
		if err := checkInterface(name); err != nil {
			return o, err
		}
	}
	o.LoopbackLinks = slices.Clone(o.LoopbackLinks)
	return o, nil
}

// portsSubject names the ports of a call in its error.
func portsSubject(ports []Port) string {
	switch len(ports) {
	case 0:
		return "no ports"
	case 1:
		return ports[0].String()
	}
	var b strings.Builder
	b.WriteString(ports[0].String())
	b.WriteString(" and others")
	return b.String()
}
