// Package link makes, reads, changes and removes the links (network interfaces) of a network namespace, and what belongs to
// them: addresses, neighbours, bridge ports, rates.
//
// # A box on a bridge
//
// Create makes a link whole from a Spec: name, MTU, hardware address, master, addresses and, for a veth pair, the other end in
// another namespace. It does everything or leaves nothing behind in either namespace.
//
//	br, err := link.Create(ctx, host, link.Spec{
//		Name: "boxwire0", Up: true, Kind: link.Bridge{},
//		Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
//	})
//	web0, err := link.Create(ctx, host, link.Spec{
//		Name: "web0", Up: true, Master: br.Ref(),
//		Kind: link.Veth{Peer: link.Spec{
//			NS: web, Name: "eth0", Up: true,
//			Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.2/16")},
//		}},
//	})
//	err = web0.WaitReachable(ctx) // from here on no packet is lost, in or out
//
// Each [Kind] of link has a type. A zero field is the kernel's default. Create reads the link back: an option that the kernel
// ignored is an error that names it.
//
// # From ip to link
//
//	ip link add ... type vlan id 100     Create with Spec.Kind VLAN{ID: 100} and Spec.Parent
//	ip link set dev X mtu 1400           Link.Update(ctx, Spec{MTU: 1400}); also a name, address, option
//	ip link set dev X up, down           Link.SetUp, Link.SetDown
//	ip link set dev X master br0         Link.SetMaster
//	ip link set dev X netns web          Link.Move; better is Spec.NS
//	ip link show, del                    Get, List, Link.Details, Link.Stats; Link.Delete, DeleteAll
//	ip link show group 7                 List(ctx, ns, Filter{Group: 7}); also Filter.Master, Filter.Kind
//	ip address add, del, flush, show     Link.AddPrefixes, Link.DeleteAddrs, Link.FlushAddrs, Link.Addrs
//	ip neighbour, bridge fdb             Link.AddNeighbours ..., Link.AddFDBEntries ...; Link.SyncNeighbours, Link.SyncFDB
//	bridge link set, bridge vlan         Link.SetPort; Link.AddVLANs, Link.SyncVLANs
//	tc qdisc add ... tbf rate 100mbit    Link.SetRate, both directions
//	ip tuntap add                        OpenTun, with its descriptors
//	ip monitor link address              Watch
//	ethtool -k, -K; arping -U            Link.Features, Link.SetFeatures; Link.Announce
//
// # Make, ensure, update, delete
//
// Create fails with os.ErrExist if there is such a link. Ensure makes it or changes it to match, and may be repeated. Update
// changes what is named. DeleteAll removes many links in the time of a few.
//
//	br, err = link.Ensure(ctx, host, spec)                  // at every start of a daemon
//	br, err = br.Update(ctx, link.Spec{MTU: 1400})
//	ports, err := link.List(ctx, host, link.Filter{Master: br.Ref()})
//	err = link.DeleteAll(ctx, ports...)
//
// The verbs for what a link has are the same everywhere. Add fails with os.ErrExist and does all or nothing. Replace also changes
// what is there. Delete continues past what is missing and names it. Flush deletes what a function selects.
//
// # Rates
//
// SetRate limits what leaves a link and what comes in, in bits per second. The host's end of a box's veth sends what the box
// downloads:
//
//	err = web0.SetRate(ctx, link.Limit{Rate: 100 * link.Mbit}, link.Limit{Rate: 20 * link.Mbit})
//
// # Wait and watch
//
// Link.WaitUp, WaitCarrier, WaitForwarding, WaitAddr and WaitGone sleep until the kernel reports what they wait for, and
// WaitReachable until a box that was just plugged in loses no packet. Watch yields the present state, marks when it is complete,
// and then yields every change; WatchAll does so for all namespaces that have an id in this one.
//
//	for e, err := range link.Watch(ctx, host, link.TopicLinks) {
//		if err == nil && e.Kind == link.EventChanged {
//			log.Print(e.Link.Name, " is up: ", e.Link.Up)
//		}
//	}
//
// # Values, errors, kernels
//
// A Link is what the kernel reported when it was read, and the namespace it was read in. Its methods find the link by its index,
// and do not keep its namespace alive. All functions may be called from many goroutines, on any thread.
//
// Errors are *netns.Error. errors.Is finds os.ErrExist, os.ErrNotExist, os.ErrPermission (CAP_NET_ADMIN is missing),
// errors.ErrUnsupported (the kernel lacks the kind or option), os.ErrInvalid (refused before anything was sent), os.ErrClosed,
// ErrInterrupted (a list that could not be completed) and the errors of ctx. If ctx is done before a call, nothing is sent. A
// call that changes something waits for the kernel's answer; reads stop at once. Linux 5.10 is enough unless a comment says
// otherwise.
package link
