// Package containerd has the scenes with containerd: Debian's, and a current one that is built from the Go module proxy.
// Pods get their network from examples/cni. critest, the Kubernetes project's tests of such engines, judges it, and
// so do tests of what happens to pods and boxes when containerd restarts or is killed.
package containerd
