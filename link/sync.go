package link

// Changes counts what a sync did.
type Changes struct {
	Added, Replaced, Deleted int
}
