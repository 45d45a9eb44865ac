// Package wire makes the kernel of one network namespace what a plan of package plan says, and follows it.
//
//	w := wire.New(host, wire.Options{Dir: stateDir})
//	err := w.Check(ctx, config)
//	for _, err := range w.Changes(ctx) {
//		self, err := w.Self(ctx, id, config, prefixes)
//		did, err := w.Apply(ctx, plan.For(snapshot, self, down, keep))
//	}
//
// Self (or Ensure) makes the tunnel link, and Apply the routes and the peers of WireGuard. Both touch the difference only: where nothing
// differs they send no change, and what is there carries packets all the time. Both may be repeated, and complete what an earlier
// call, of this program or of one that was killed, has begun. Nothing here ends with the program.
//
// The fleet's routes have a protocol number of their own, and its link an alias. Routes and links of others are never touched: one
// that is in the way is an error that names it.
//
// Errors are *netns.Error, with the operation, the namespace and what it was tried on. errors.Is finds os.ErrInvalid (bad input,
// refused before anything is sent), os.ErrExist (something of another program is in the way), errors.ErrUnsupported (the kernel
// lacks something) and what packages link and route say.
package wire
