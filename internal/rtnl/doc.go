// Package rtnl reads links, addresses, routes and neighbours for packages that need a
// few of their properties, and are not link or route.
//
// The messages are decoded by github.com/jsimonetti/rtnetlink. What it would get wrong
// does not reach it: only the attributes that this package knows, cut to the length
// that rtnetlink expects. For example, it fails on a struct rtnl_link_stats64 of a newer
// kernel, and does not report an attribute of link and neighbour messages that is too
// short. IFLA_LINKINFO and IFLA_AF_SPEC are decoded here: rtnetlink decodes the former
// by what a program has registered, and does not know the latter.
//
// Packages link and route decode the same messages with internal/nl's walk, which
// allocates nothing.
package rtnl
