// Package scene is what the scenes beside a host's own network programs share: boxes on a bridge with
// connections that must live on, and the state of the host as its own tools show it.
package scene
