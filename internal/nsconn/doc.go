// Package nsconn gives the packages of this module the netlink connections of a
// namespace.
//
// The connections belong to a netns.NS, which opens and closes them. Their type is
// internal, so they are no part of netns's exported API: netns registers with this
// package how it opens them.
package nsconn
