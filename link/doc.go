// Package link makes, reads, changes and removes the links (network interfaces) of a network namespace, and what belongs to
// them: addresses, neighbours, bridge ports, rates.
//
// # A box on a bridge
//
// [Create] makes a link whole from a [Spec]: name, MTU, hardware address, master, addresses and, for a veth pair, the other end
// in another namespace. It succeeds in everything or leaves nothing behind in either namespace.
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
// There is a type for each [Kind] of link. Zero fields are the kernel's defaults. The link is read back: an option that the
// kernel ignored is an error that names it.
//
// # Make, ensure, update, delete
//
// Create fails with os.ErrExist where there is such a link. [Ensure] makes it or changes it to match, and may be repeated.
// [Link.Update] changes what is named and leaves the rest alone. [DeleteAll] removes many links in the time of a few.
//
//	br, err = link.Ensure(ctx, host, spec)                  // at every start of a daemon
//	br, err = br.Update(ctx, link.Spec{MTU: 1400})
//	ports, err := link.List(ctx, host, link.Filter{Master: br.Ref()})
//	err = link.DeleteAll(ctx, ports...)
//
// # What a link has
//
// Methods change and read addresses ([Link.AddAddrs]), neighbours, settings as a bridge port ([Link.SetPort]) and VLANs there
// ([Link.SyncVLANs]), forwarding databases, rates and offloads. Calls that take many things send them together.
//
//	err = web0.SetPort(ctx, link.PortOptions{Isolated: new(true)})
//	err = web0.SetRate(ctx, link.Limit{Rate: 100 * link.Mbit}, link.Limit{Rate: 20 * link.Mbit})
//	details, err := web0.Details(ctx)                       // options, statistics, unknown attributes
//
// The verbs are the same everywhere. Add fails with os.ErrExist and then leaves nothing of the call behind. Replace also changes
// what is there. Delete goes on past what is missing and names it. Flush removes what a function chooses.
//
// # Wait and watch
//
// [Watch] yields the present state, marks when it is complete, and then yields every change. When events were lost, it marks
// that and yields the state again. [WatchAll] does so for all namespaces that have an id in this one.
//
//	for e, err := range link.Watch(ctx, host, link.TopicLinks) {
//		if err == nil && e.Kind == link.EventChanged {
//			log.Print(e.Link.Name, " is up: ", e.Link.Up)
//		}
//	}
//
// [Link.WaitUp], [Link.WaitCarrier], [Link.WaitForwarding], [Link.WaitAddr] and [Link.WaitGone] sleep until the kernel reports
// what they wait for. A box that was just plugged in loses packets until its port and the bridge have a carrier and forward:
// [Link.WaitReachable] waits for all of it. [Link.Announce] corrects what neighbours remember of an address.
//
// # A Link is a value
//
// A [Link] is what the kernel said when it was read, and the namespace it was read in. Its methods act there by the link's index,
// so a rename does not lead them astray. It does not follow later changes; read it again with [Get] or [ByIndex]. It does not
// keep its namespace alive: once the handle is closed, its methods return os.ErrClosed. All functions may be called from many
// goroutines, on any thread.
//
// # Errors, cancellation, kernels
//
// Errors are *netns.Error: operation, namespace, subject and cause. errors.Is finds os.ErrExist, os.ErrNotExist, os.ErrPermission
// (CAP_NET_ADMIN is missing), errors.ErrUnsupported (the kernel lacks the kind or option), os.ErrInvalid (refused before anything
// was sent), os.ErrClosed, [ErrInterrupted] (a list that could not be completed) and the errors of ctx.
//
// When ctx is done before a call, nothing is sent. The kernel carries out a request inside the system call that sends it, so
// calls that change something wait for the answer; Create looks at ctx between its steps and undoes what was done. Reads stop at
// once. Everything works on Linux 5.10 and newer unless a comment says otherwise.
package link
